"""How far a confidence can be taken at its word, and whether uncertainty points at mistakes.

Samples are decisions; they are weighted by how often their run was drawn.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["MINIMUM_CLASS", "Bins", "auroc", "equal_mass_edges", "equal_width_edges"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

MINIMUM_CLASS = 5
"""Samples of either class without which an AUROC says nothing."""
CHUNK = 1 << 22
"""Most weights of samples that are held at a time."""


def equal_width_edges(bins: int = 10) -> Floats:
    """Inner edges of bins of equal width over [0, 1]."""
    return np.linspace(0.0, 1.0, bins + 1)[1:-1]


def equal_mass_edges(confidence: Floats, bins: int = 15) -> Floats:
    """Inner edges of bins that hold equally many samples; equal values share a bin."""
    if not len(confidence):
        return equal_width_edges(bins)
    return np.quantile(confidence, np.linspace(0.0, 1.0, bins + 1)[1:-1])


@dataclass(frozen=True, eq=False)
class Bins:
    """Sums of samples by run and bin, [R, K]: what calibration is computed from."""

    count: Floats
    confidence: Floats
    right: Floats

    @classmethod
    def of(cls, run: Ints, confidence: Floats, right: Bools, edges: Floats, runs: int) -> "Bins":
        """Sort samples into bins.

        Args:
            run: [n], the run of each sample.
            confidence: [n], in [0, 1].
            right: [n], whether what was predicted with that confidence was so.
            edges: [K - 1], inner edges, ascending; a value on an edge belongs below it.
            runs: R.
        """
        place = (run, np.searchsorted(edges, confidence))
        sums = []
        for values in (np.ones(len(run)), confidence, right.astype(np.float64)):
            table = np.zeros((runs, len(edges) + 1))
            np.add.at(table, place, values)
            sums.append(table)
        return cls(*sums)

    def error(self, weights: Floats) -> Floats:
        """[W]: expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

        The mean distance between confidence and frequency over the bins, by their number of
        samples; NaN without any.

        Args:
            weights: [W, R].
        """
        gap = np.abs(weights @ self.confidence - weights @ self.right).sum(axis=1)
        total = (weights @ self.count).sum(axis=1)
        error = np.full(len(total), np.nan)
        np.divide(gap, total, out=error, where=total > 0)
        return error

    def reliability(self) -> list[dict[str, float]]:
        """Mean confidence, frequency and number of samples of every bin that has any."""
        count, confidence, right = (
            table.sum(axis=0) for table in (self.count, self.confidence, self.right)
        )
        return [
            {
                "confidence": float(confidence[k] / count[k]),
                "frequency": float(right[k] / count[k]),
                "count": int(count[k]),
            }
            for k in np.flatnonzero(count)
        ]


def auroc(weights: Floats, run: Ints, score: Floats, positive: Bools) -> Floats:
    """[W]: probability that a positive sample has a higher score than a negative one.

    The Mann-Whitney statistic; ties count one half. NaN with fewer than `MINIMUM_CLASS` samples of
    either class, or where a resample has none.

    Args:
        weights: [W, R], of the runs.
        run: [n], the run of each sample.
        score: [n].
        positive: [n].
    """
    area = np.full(len(weights), np.nan)
    if min(positive.sum(), (~positive).sum()) < MINIMUM_CLASS:
        return area
    order = np.argsort(score, kind="stable")
    run, score, positive = run[order], score[order], positive[order]
    starts = np.flatnonzero(np.diff(score, prepend=-np.inf))
    step = max(1, CHUNK // len(run))
    for chunk in range(0, len(weights), step):
        drawn = weights[chunk : chunk + step, run]
        above = np.add.reduceat(np.where(positive, drawn, 0.0), starts, axis=1)
        below = np.add.reduceat(np.where(positive, 0.0, drawn), starts, axis=1)
        lower = np.cumsum(below, axis=1) - below
        pairs = above.sum(axis=1) * below.sum(axis=1)
        won = (above * (lower + 0.5 * below)).sum(axis=1)
        np.divide(won, pairs, out=area[chunk : chunk + step], where=pairs > 0)
    return area
