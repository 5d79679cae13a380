"""Which features of decisions go with which outcomes, and when nothing can be said.

Each pair is tested twice: Spearman's rank correlation finds what rises or falls together, mutual
information any dependence at all. Both get their p-value by permuting the outcomes, which assumes
no distribution, and all p-values together are corrected by Holm's method: the probability of a
single false report is at most α whatever the tests have to do with each other (features of one
network and effects at several horizons depend on each other strongly, which the method of Benjamini
and Hochberg does not allow for in general). Every report is read by someone who may act on it, so
the rate that matters is that of any false one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from tamiyo.learn.rewards.measurements import Array, Mask

__all__ = ["Association", "CorrelationReport", "Finding", "analyze_correlations", "holm"]

MIN_SAMPLES = 30
"""Independent observations of a pair below which nothing is tested."""
_BINS = 8
_PER_BIN = 10
"""Observations that a bin of the mutual information holds at least."""
_BATCH = 1 << 20
"""Permuted values held at a time."""

Integers = npt.NDArray[np.int64]


class Finding(StrEnum):
    """What can be said about a pair."""

    ASSOCIATED = "associated"
    NOTHING = "nothing found"
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class Association:
    """One feature and one outcome. Numbers are NaN where there was not enough data."""

    feature: str
    outcome: str
    samples: int
    """Independent observations of both."""
    spearman: float
    """Rank correlation, in [-1, 1]."""
    spearman_p: float
    """Corrected."""
    mutual_information: float
    """In nats, of values binned by rank, less what independent ones show; at least 0."""
    mutual_information_p: float
    """Corrected."""
    finding: Finding


@dataclass(frozen=True, slots=True)
class CorrelationReport:
    """All pairs, and how they were tested."""

    associations: tuple[Association, ...]
    alpha: float
    tests: int
    """Tests that the p-values are corrected for."""

    @property
    def found(self) -> tuple[Association, ...]:
        """Pairs that are associated, the strongest rank correlation first."""
        found = [pair for pair in self.associations if pair.finding is Finding.ASSOCIATED]
        return tuple(sorted(found, key=lambda pair: -abs(pair.spearman)))


@dataclass(frozen=True, slots=True)
class _Tested:
    samples: int
    spearman: float = math.nan
    information: float = math.nan
    p_values: tuple[float, float] | None = None


def analyze_correlations(
    features: Mapping[str, npt.ArrayLike],
    outcomes: Mapping[str, npt.ArrayLike],
    *,
    episodes: npt.ArrayLike | None = None,
    alpha: float = 0.05,
    min_samples: int = MIN_SAMPLES,
    seed: int = 0,
) -> CorrelationReport:
    """Test every feature against every outcome.

    Args:
        features: By name, [n] values at n decisions; NaN is missing.
        outcomes: By name, [n] values measured later, for example the effect at a horizon.
        episodes: [n], the episode of each decision. Decisions of one episode are not independent,
            so one of each episode is drawn for each pair. By default all are independent.
        alpha: Probability of any false report.
        min_samples: Observations below which a pair is not tested.
        seed: Of the draws and the permutations.

    Raises:
        ValueError: columns of different lengths, infinite values, or an α outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    generator = np.random.default_rng(seed)
    x, y = _columns(features), _columns(outcomes)
    groups = None if episodes is None else np.asarray(episodes)
    if len({*map(len, [*x.values(), *y.values()]), *([] if groups is None else [len(groups)])}) > 1:
        raise ValueError("all columns must have the same length")
    # Holm's smallest threshold is α over the number of tests; a permutation p-value must reach it.
    permutations = max(999, math.ceil(4 * len(x) * len(y) / alpha))
    tested = {}
    for feature in x:
        for outcome in y:
            known = ~np.isnan(x[feature]) & ~np.isnan(y[outcome])
            rows = _independent(known, groups, generator)
            pair = x[feature][rows], y[outcome][rows]
            tested[feature, outcome] = _test(*pair, min_samples, permutations, generator)
    adjusted = iter(holm([p for test in tested.values() if test.p_values for p in test.p_values]))
    pairs = [
        _judge(*names, test, next(adjusted), next(adjusted), alpha)
        if test.p_values
        else _judge(*names, test, math.nan, math.nan, alpha)
        for names, test in tested.items()
    ]
    return CorrelationReport(
        tuple(pairs), alpha, 2 * sum(test.p_values is not None for test in tested.values())
    )


def holm(p_values: npt.ArrayLike) -> list[float]:
    """Adjusted p-values [m] in the given order (Holm, Scandinavian Journal of Statistics, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def _columns(named: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in named.items()}
    for name, values in columns.items():
        if values.ndim != 1 or np.any(np.isinf(values)):
            raise ValueError(f"{name} must be a column [n] of finite values or NaN")
    return columns


def _independent(
    known: Mask, groups: npt.NDArray[np.generic] | None, generator: np.random.Generator
) -> Integers:
    """Rows that are known, one of each group, drawn at random."""
    rows = np.flatnonzero(known)
    if groups is None:
        return rows
    shuffled = generator.permutation(rows)
    _, first = np.unique(groups[shuffled], return_index=True)
    return shuffled[first]


def _test(
    x: Array,
    y: Array,
    min_samples: int,
    permutations: int,
    generator: np.random.Generator,
) -> _Tested:
    samples = len(x)
    if samples < min_samples or np.ptp(x) == 0 or np.ptp(y) == 0:
        return _Tested(samples)
    ranks = _ranks(x), _ranks(y)
    standard = [(rank - rank.mean()) / (rank.std() * math.sqrt(samples)) for rank in ranks]
    bins = min(_BINS, max(2, math.isqrt(samples // _PER_BIN)))
    codes = [np.minimum((rank * bins / samples).astype(np.int64), bins - 1) for rank in ranks]
    spearman = float(standard[0] @ standard[1])
    information = float(_information(codes[0], codes[1][None], bins)[0])

    null_spearman, null_information = [], []
    identity = np.arange(samples)
    for size in _batches(permutations, samples):
        shuffled = generator.permuted(np.broadcast_to(identity, (size, samples)), axis=1)
        null_spearman.append(standard[1][shuffled] @ standard[0])
        null_information.append(_information(codes[0], codes[1][shuffled], bins))
    chance = np.concatenate(null_information)
    return _Tested(
        samples,
        spearman,
        max(0.0, information - float(chance.mean())),
        (
            _p_value(abs(spearman), np.abs(np.concatenate(null_spearman))),
            _p_value(information, chance),
        ),
    )


def _ranks(values: Array) -> Array:
    """[n], from 0.5 to n - 0.5; ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - counts / 2)[inverse])


def _information(x: Integers, y: Integers, bins: int) -> Array:
    """Mutual information [B] in nats of codes x [n] with each row of codes y [B, n]."""
    offset = np.arange(len(y))[:, None] * bins * bins
    cells = np.bincount((offset + x * bins + y).ravel(), minlength=len(y) * bins * bins)
    joint = cells.reshape(-1, bins, bins) / len(x)
    independent = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=joint > 0)
    return np.asarray((joint * np.log(ratio)).sum((1, 2)))


def _batches(permutations: int, samples: int) -> list[int]:
    size = max(1, _BATCH // samples)
    full, rest = divmod(permutations, size)
    return [size] * full + [rest] * (rest > 0)


def _p_value(statistic: float, null: Array) -> float:
    """Share of arrangements that show at least as much, the observed one among them."""
    # Equal sums may differ in their last bits, depending on the order of summation.
    as_large = np.count_nonzero(null >= statistic - 1e-12)
    return (1 + as_large) / (1 + len(null))


def _judge(  # one argument per number that is reported
    feature: str, outcome: str, test: _Tested, rank_p: float, any_p: float, alpha: float
) -> Association:
    finding = Finding.NOT_ENOUGH_DATA
    if test.p_values is not None:
        found = min(rank_p, any_p) <= alpha
        finding = Finding.ASSOCIATED if found else Finding.NOTHING
    return Association(
        *(feature, outcome, test.samples, test.spearman, rank_p, test.information, any_p, finding)
    )
