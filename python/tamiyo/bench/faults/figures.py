"""What the cases of one policy come to, each figure with its 95 % interval.

Shares have Wilson's interval, means and quotients of sums that of a bootstrap over runs, medians
that of the binomial test on quantiles. All are over the seeds of the cells at hand, not over cells.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import quantile_test  # type: ignore[import-untyped] # it has no stubs

from tamiyo.bench.evaluation.resampling import Figure, Resampler
from tamiyo.bench.faults.cohort import FaultCase, HealthyCase
from tamiyo.bench.transfer.figures import Figures, wilson

__all__ = ["LOCATED", "balanced_accuracy", "fault_figures", "healthy_figures"]

LOCATED = frozenset(("F3", "F4", "F5", "F6", "F13"))
"""Kinds of which the culprit is counted."""
Floats: TypeAlias = npt.NDArray[np.float64]
Case = TypeVar("Case", FaultCase, HealthyCase)

FEWEST_FOR_MEDIANS = 6
"""Of fewer values no two hold their median with 95 %."""


def fault_figures(cases: Sequence[FaultCase]) -> Figures:
    """Of the runs that a fault has harmed; others count in `valid` alone.

    `valid`: the fault did harm. `lost`: accuracy that it cost. `detected`: something was done after
    it struck, and nothing before. `culprit`: the first thing done was done to faulty layers alone,
    of the kinds in `LOCATED`. `type`, `decision`: it is of a type that cures; that, and where it
    belongs; both of the faults that have a cure. `repaired`: accuracy ended within two points of
    the clean twins. `repaired_curable`: the same, of those that the oracle has repaired. `gained`:
    accuracy above the untouched run's. `gained_share`: over what the oracle gained, both summed.
    `detection_steps`: median from the onset, where there was a detection. `repair_steps`,
    `repair_epochs`: medians where there was a repair, see `FaultCase.repair_steps`. `compute`:
    median of processor time over that of the untouched run. `rolled_back`: adaptations taken back,
    per run. `verified`: share of them that was compared and found equal.
    """
    hurt = [case for case in cases if case.valid]
    located = [case for case in hurt if case.row.kind in LOCATED]
    treatable = [case for case in hurt if case.row.cures]
    repaired = [case for case in hurt if case.repaired and np.isfinite(case.repair_steps)]
    found = [case for case in hurt if case.row.detected]
    undone = [act for case in hurt for act in case.row.acts if act.rolled_back]
    return {
        "valid": wilson(len(hurt), len(cases)),
        "lost": _mean(hurt, lambda case: case.comparison.lost),
        "detected": _share(hurt, lambda case: case.row.detected),
        "culprit": _share(located, lambda case: case.row.right_place),
        "type": _share(treatable, lambda case: case.row.right_type),
        "decision": _share(treatable, lambda case: case.row.right),
        "repaired": _share(hurt, lambda case: case.repaired),
        "repaired_curable": _share(
            [case for case in hurt if case.curable], lambda case: case.repaired
        ),
        "gained": _mean(hurt, lambda case: case.gained),
        "gained_share": _gained_share(hurt),
        "detection_steps": _median([_detection_steps(case) for case in found]),
        "repair_steps": _median([case.repair_steps for case in repaired]),
        "repair_epochs": _median(
            [case.repair_steps / case.row.settings["steps_per_epoch"] for case in repaired]
        ),
        "compute": _compute(hurt),
        "rolled_back": _mean(hurt, lambda case: sum(act.rolled_back for act in case.row.acts)),
        "verified": wilson(sum(act.verified is True for act in undone), len(undone)),
    }


def healthy_figures(cases: Sequence[HealthyCase]) -> Figures:
    """Of healthy runs.

    `alarms`: anything was decided. `harm`: accuracy minus that of the untouched run, paired.
    `compute`: median of processor time over the untouched run's. `troubled`: something raised or
    was logged. `disturbed`: of the runs in which nothing was done, those that did not end in the
    very state of the untouched one.
    """
    left = [case for case in cases if case.row.first is None]
    return {
        "alarms": _share(cases, lambda case: bool(case.row.acts)),
        "harm": _mean(cases, lambda case: case.row.accuracy - case.untouched.accuracy),
        "compute": _compute(cases),
        "troubled": _share(cases, lambda case: bool(case.row.problems)),
        "disturbed": _share(left, lambda case: case.row.checksum != case.untouched.checksum),
    }


def balanced_accuracy(faulty: Sequence[FaultCase], healthy: Sequence[HealthyCase]) -> Figure:
    """Mean of the shares of harmed runs detected and of healthy ones left alone."""
    hurt = [case for case in faulty if case.valid]
    if not hurt or not healthy:
        return _unknown()
    right = np.array(
        [*(case.row.detected for case in hurt), *(not case.row.acts for case in healthy)]
    )
    ill = np.arange(len(right)) < len(hurt)

    def balance(weights: Floats) -> Floats:
        shares = np.full((2, len(weights)), np.nan)
        for place, group in enumerate((ill, ~ill)):
            total = weights @ group
            np.divide(weights @ (group & right), total, out=shares[place], where=total > 0)
        found: Floats = shares.mean(0)
        return found

    return Resampler(np.arange(len(right))).statistic(balance, len(right))


def _detection_steps(case: FaultCase) -> float:
    return float(case.row.first.step - case.row.onset) if case.row.first is not None else np.nan


def _gained_share(cases: Sequence[FaultCase]) -> Figure:
    known = [case for case in cases if not np.isnan(case.attainable)]
    if not known:
        return _unknown()
    gained = np.array([case.gained for case in known])
    attainable = np.array([case.attainable for case in known])
    return Resampler(np.arange(len(known))).ratio(gained, attainable)


def _compute(cases: Sequence[Case]) -> Figure:
    return _median(
        [
            case.row.cpu_seconds / case.untouched.cpu_seconds
            for case in cases
            if case.untouched.cpu_seconds > 0
        ]
    )


def _share(cases: Sequence[Case], holds: Callable[[Case], bool]) -> Figure:
    return wilson(sum(map(holds, cases)), len(cases))


def _mean(cases: Sequence[Case], value: Callable[[Case], float]) -> Figure:
    if not cases:
        return _unknown()
    values = np.array([value(case) for case in cases])
    return Resampler(np.arange(len(values))).mean(values)


def _median(values: Sequence[float]) -> Figure:
    if len(values) < FEWEST_FOR_MEDIANS:
        middle = float(np.median(values)) if values else np.nan
        return Figure(middle, np.nan, np.nan, len(values))
    middle = float(np.median(values))
    interval = quantile_test(values, q=middle, p=0.5).confidence_interval(0.95)
    return Figure(middle, float(interval.low), float(interval.high), len(values))


def _unknown() -> Figure:
    return wilson(0, 0)
