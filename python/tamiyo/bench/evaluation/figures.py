"""What the rows of a cohort come to; `docs/evaluation.md` defines every figure.

Decisions up to the first action of a run count for calibration and uncertainty. Later ones do not:
the run is then no longer what the fault made of it, and the oracle, which acts once, has no say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.bench.evaluation.calibration import Bins, auroc, equal_mass_edges, equal_width_edges
from tamiyo.bench.evaluation.resampling import Figure, Resampler
from tamiyo.bench.evaluation.rows import Rows

__all__ = ["Figures", "figures", "reliability"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Figures: TypeAlias = Mapping[str, Figure]


def figures(rows: Rows, resampler: Resampler, among: Bools) -> Figures:
    """All figures of one cohort over some of its runs.

    Args:
        rows: What was seen.
        resampler: Of the same runs.
        among: [R], the runs that count.
    """
    faulty, curable = rows.faulty & among, rows.curable & among
    healthy = ~rows.faulty & among
    first, struck, right = rows.first, rows.struck, rows.right
    acted = rows.adapted
    answered = acted & np.greater_equal(first, struck)
    found = resampler.means(
        {
            "objective": (rows.objective, among),
            "objective_faulty": (rows.objective, faulty),
            "objective_healthy": (rows.objective, healthy),
            "accuracy": (rows.accuracy, among),
            "accuracy_faulty": (rows.accuracy, faulty),
            "decision_accuracy": (right, curable),
            "decision_accuracy_all": (right, faulty),
            "acted_accuracy": (right, curable & acted),
            "recall": (answered, curable),
            "false_alarms": (acted, healthy),
            "early_alarms": (acted & (first < struck), faulty & (struck > 0)),
            "delay": (rows.delay, curable & answered),
            "actions": (rows.acted.sum(axis=1), among),
        }
    )
    return found | _trust(rows, resampler, among)


def reliability(rows: Rows) -> dict[str, list[dict[str, float]]]:
    """Bins of confidence against frequency: `mass` 15 of equal mass, `width` 10 of equal width."""
    samples = _Samples.of(rows, np.ones(len(rows), bool))
    return {
        "mass": samples.bins(equal_mass_edges(samples.confidence)).reliability(),
        "width": samples.bins(equal_width_edges()).reliability(),
    }


@dataclass(frozen=True, eq=False)
class _Samples:
    """n decisions, each up to the first action of its run, that came with a confidence."""

    runs: int
    run: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]
    due: Bools
    wrong: Bools
    """Whether the policy would act and should not, or not so; or should, and would not."""

    @classmethod
    def of(cls, rows: Rows, among: Bools) -> "_Samples":
        chosen = rows.open & ~np.isnan(rows.confidence) & among[:, None]
        run, _ = np.nonzero(chosen)
        wrong: Bools = np.where(rows.proposed, ~(rows.fits & rows.due), rows.due)
        return cls(
            len(rows),
            run,
            rows.confidence[chosen].astype(np.float64),
            rows.uncertainty[chosen].astype(np.float64),
            rows.due[chosen],
            wrong[chosen],
        )

    def bins(self, edges: npt.NDArray[np.float64]) -> Bins:
        return Bins.of(self.run, self.confidence, self.due, edges, self.runs)


def _trust(rows: Rows, resampler: Resampler, among: Bools) -> dict[str, Figure]:
    """Calibration of the confidence, and what the uncertainty knows; NaN without either."""
    samples = _Samples.of(rows, among)
    mass, width = equal_mass_edges(samples.confidence), equal_width_edges()
    unsure = ~np.isnan(samples.uncertainty)

    def area(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        run, score = samples.run[unsure], samples.uncertainty[unsure]
        return auroc(weights, run, score, samples.wrong[unsure])

    return {
        "ece": resampler.statistic(samples.bins(mass).error, len(samples.run)),
        "ece_width": resampler.statistic(samples.bins(width).error, len(samples.run)),
        "ece_acted": _error_when_acting(rows, resampler, among),
        "auroc": resampler.statistic(area, int(unsure.sum())),
    }


def _error_when_acting(rows: Rows, resampler: Resampler, among: Bools) -> Figure:
    """Calibration error of the confidence of first actions against whether they were right."""
    run = np.flatnonzero(rows.adapted & among)
    confidence = rows.confidence[run, rows.first[run]].astype(float)
    known = ~np.isnan(confidence)
    run, confidence = run[known], confidence[known]
    bins = Bins.of(run, confidence, rows.right[run], equal_width_edges(), len(rows))
    return resampler.statistic(bins.error, len(run))
