"""The result of an evaluation, from the rows of every cohort to one document."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tamiyo.bench.evaluation.figures import Figures, figures, reliability
from tamiyo.bench.evaluation.lineup import COHORTS, LEARNED, NO_OP
from tamiyo.bench.evaluation.playing import Played
from tamiyo.bench.evaluation.resampling import Figure, Resampler
from tamiyo.bench.evaluation.rows import KINDS, Rows
from tamiyo.bench.evaluation.splits import Split

__all__ = ["CohortResult", "SplitResult"]

DIFFERENCES: Sequence[tuple[str, str]] = (
    ("rules", NO_OP),
    ("rules", "growth"),
    ("tuned", "rules"),
    ("learned", "rules"),
    ("learned", "tuned"),
    ("default", "rules"),
    ("default", "learned"),
    ("oracle", "rules"),
    ("oracle", "learned"),
)
SHARES: Sequence[tuple[str, str]] = tuple(
    (name, "oracle") for name in ("rules", "tuned", "learned", "default")
)


@dataclass(frozen=True, eq=False)
class CohortResult:
    """One policy on one split."""

    overall: Figures
    kinds: Mapping[str, Figures]
    """By kind of fault, healthy first."""
    data: Mapping[str, Figures]
    """By data set."""
    reliability: Mapping[str, list[dict[str, float]]]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "overall": _plain(self.overall),
            "kinds": {name: _plain(found) for name, found in self.kinds.items()},
            "data": {name: _plain(found) for name, found in self.data.items()},
            "reliability": dict(self.reliability),
        }


@dataclass(frozen=True, eq=False)
class SplitResult:
    """All cohorts on one split."""

    split: Split
    rows: Mapping[str, Rows]
    cohorts: Mapping[str, CohortResult]
    pairs: Mapping[str, Figure]
    """Paired comparisons in J: `a - b` is a mean difference, `a / b` a quotient of means."""

    @classmethod
    def of(cls, split: Split, seeds: Sequence[Played]) -> "SplitResult":
        """From what was played with every evaluation seed."""
        rows = {name: Rows.concatenate([seed[name] for seed in seeds]) for name in seeds[0]}
        resampler = Resampler(rows[NO_OP].seed)
        return cls(
            split,
            rows,
            {name: _cohort(one, resampler) for name, one in rows.items()},
            dict(_pairs(rows, resampler)),
        )

    def figure(self, name: str) -> Figure | None:
        """By `cohort.figure` or the name of a pair; `None` where the cohort did not play."""
        cohort, _, figure = name.rpartition(".")
        if cohort in self.cohorts:
            return self.cohorts[cohort].overall[figure]
        return self.pairs.get(name)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = self.rows[NO_OP]
        return {
            "runs": len(rows),
            "faulty": int(rows.faulty.sum()),
            "labelled": int(rows.curable.sum()),
            "cohorts": {name: cohort.as_json() for name, cohort in self.cohorts.items()},
            "pairs": _plain(self.pairs),
        }


def _cohort(rows: Rows, resampler: Resampler) -> CohortResult:
    def among(mask: Any) -> Figures:
        return figures(rows, resampler, mask)

    kinds = {kind.value: rows.fault == place for place, kind in enumerate(KINDS)}
    return CohortResult(
        among(np.ones(len(rows), bool)),
        {name: among(mask) for name, mask in kinds.items() if mask.any()},
        {str(name): among(rows.data == name) for name in np.unique(rows.data)},
        reliability(rows),
    )


def _pairs(rows: Mapping[str, Rows], resampler: Resampler) -> Iterator[tuple[str, Figure]]:
    others = [name for name in rows if name not in COHORTS]
    differences = [pair for name in others for pair in ((name, "rules"), (LEARNED, name))]
    for one, other in (*DIFFERENCES, *differences):
        if one in rows and other in rows:
            difference = rows[one].objective - rows[other].objective
            yield f"{one} - {other}", resampler.mean(difference)
    for one, other in (*SHARES, *((name, "oracle") for name in others)):
        if one in rows and other in rows:
            yield f"{one} / {other}", _share(rows[one], rows[other], resampler)


def _share(one: Rows, other: Rows, resampler: Resampler) -> Figure:
    """Quotient of mean J; unknown where that of the other one may be zero."""
    if not resampler.mean(other.objective).low > 0:
        return Figure(np.nan, np.nan, np.nan, len(one))
    return replace(resampler.ratio(one.objective, other.objective), count=len(one))


def _plain(found: Figures) -> dict[str, Any]:
    return {name: figure.as_json() for name, figure in found.items()}
