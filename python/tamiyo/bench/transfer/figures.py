"""What rows come to: shares with Wilson's interval, means with that of a paired bootstrap."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from scipy.stats import binomtest  # type: ignore[import-untyped] # it has no stubs

from tamiyo.bench.evaluation.resampling import Figure, Resampler
from tamiyo.bench.transfer.faults import HEALTHY
from tamiyo.bench.transfer.rows import Act, Row

__all__ = [
    "HARM",
    "Figures",
    "false_alarms",
    "faulty_figures",
    "groups",
    "healthy_figures",
    "healthy_rows",
    "wilson",
]

Figures: TypeAlias = Mapping[str, Figure]
Item = TypeVar("Item")

HARM = 0.02
"""Accuracy that a fault must cost to count as one."""


def wilson(count: int, total: int) -> Figure:
    """A share with Wilson's 95 % interval (Journal of the American Statistical Association, 1927).

    Args:
        count: How often it was so.
        total: How often it could have been; with none, nothing is known.
    """
    if not total:
        return Figure(np.nan, np.nan, np.nan, 0)
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return Figure(count / total, float(interval.low), float(interval.high), total)


def healthy_figures(rows: Sequence[Row]) -> Figures:
    """Of healthy runs of one policy.

    `decided`: anything was decided, `done`: anything was done to the model, `kept`: anything of
    it stayed. `difference`: accuracy minus that of the untouched run; `difference_done`: the same
    where anything was done. `disturbed`: of the runs in which nothing was done, those that did not
    end in the very state of the untouched one. `troubled`: something raised or was logged.
    """
    left = [row for row in rows if not any(act.done for act in row.acts)]
    changed = [row for row in rows if any(act.done for act in row.acts)]
    return {
        "decided": _share(rows, lambda row: bool(row.acts)),
        "done": wilson(len(changed), len(rows)),
        "kept": _share(rows, lambda row: any(act.kept for act in row.acts)),
        "difference": _mean(rows, lambda row: row.accuracy - row.untouched),
        "difference_done": _mean(changed, lambda row: row.accuracy - row.untouched),
        "disturbed": _share(left, lambda row: not row.same_bits),
        "troubled": _share(rows, lambda row: bool(row.problems)),
    }


def faulty_figures(rows: Sequence[Row]) -> Figures:
    """Of the runs of one policy with one fault.

    Whether a fault does harm is said by the runs with nobody beside them: `harmed` is the share in
    which it cost at least `HARM`, and all others are of these. `lost`: accuracy that the fault
    cost. `acted`: anything was done, and not before the fault. `right`: the first thing done is a
    cure, in its place. `recovered`: accuracy won back over accuracy lost, both summed.
    `early`, of all runs: something was done before the fault.
    """
    harmed = [row for row in rows if _lost(row) >= HARM]
    lost = np.array([_lost(row) for row in harmed])
    won = np.array([row.accuracy - row.untouched for row in harmed])
    return {
        "harmed": wilson(len(harmed), len(rows)),
        "lost": _mean(harmed, _lost),
        "acted": _share(harmed, lambda row: row.answered),
        "right": _share(harmed, lambda row: row.right),
        "recovered": _resampler(harmed).ratio(won, lost) if harmed else wilson(0, 0),
        "early": _share(rows, lambda row: row.first is not None and not row.answered),
    }


def groups(rows: Iterable[Item], name: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Rows by what a function says of them, in the order in which it is said first."""
    found: dict[str, list[Item]] = {}
    for row in rows:
        found.setdefault(name(row), []).append(row)
    return found


def healthy_rows(rows: Iterable[Row]) -> list[Row]:
    """Those without a fault."""
    return [row for row in rows if row.fault == HEALTHY]


def false_alarms(rows: Iterable[Row]) -> list[tuple[Row, Act]]:
    """Everything that was done to healthy runs."""
    return [(row, act) for row in healthy_rows(rows) for act in row.acts if act.done]


def _lost(row: Row) -> float:
    return row.clean - row.untouched


def _share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> Figure:
    return wilson(sum(map(holds, rows)), len(rows))


def _mean(rows: Sequence[Row], value: Callable[[Row], float]) -> Figure:
    if not rows:
        return wilson(0, 0)
    return _resampler(rows).mean(np.array([value(row) for row in rows]))


def _resampler(rows: Sequence[Row]) -> Resampler:
    # Every host is a draw of its own.
    return Resampler(np.arange(len(rows)))
