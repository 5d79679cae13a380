"""What a study of growth shows: ratios to a baseline, with intervals over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import stats  # type: ignore[import-untyped]

__all__ = ["PUBLISHED", "print_ends", "print_report", "ratio_interval", "summary"]

PUBLISHED = (0.90, 0.87, 0.87, 0.97, 0.90)
"""GradMax over random growth at the five growths, from its authors' notebook."""


def summary(
    forks: Sequence[Sequence[Mapping[str, float]]],
    whole: Sequence[Mapping[str, float]],
    baseline: str,
) -> dict[str, Any]:
    """Ratios of final losses to those of the baseline.

    Args:
        forks: Per seed, growth and method the final loss.
        whole: Per seed and method the final loss.
        baseline: The method that others are divided by.

    Returns:
        Per method, for the forks: the ratio at each growth (mean over seeds), their mean over the
        growths with its 95 % interval, by Student's t over the seeds' own means, and the share of
        pairs in which it was better. For the whole runs see `ratio_interval`.
    """
    result: dict[str, Any] = {}
    for method in forks[0][0]:
        if method == baseline:
            continue
        ratios = np.array([[fork[method] / fork[baseline] for fork in seed] for seed in forks])
        result[method] = {
            "forks": {
                "per_growth": ratios.mean(axis=0).tolist(),
                "better": float((ratios < 1).mean()),
                **_interval(ratios.mean(axis=1)),
            }
        }
        if method in whole[0]:
            ends = [seed[method] / seed[baseline] for seed in whole]
            result[method]["whole"] = ratio_interval(ends)
    return result


def ratio_interval(ratios: Sequence[float]) -> dict[str, float]:
    """Geometric mean of ratios that may scatter over orders of magnitude.

    Args:
        ratios: One per seed.

    Returns:
        `mean`, its 95 % interval `low` and `high` by Student's t over the logarithms, and `better`,
        the share of ratios below 1.
    """
    values = np.asarray(ratios)
    logarithms = _interval(np.log(values))
    return {
        **{name: math.exp(value) for name, value in logarithms.items()},
        "better": float((values < 1).mean()),
    }


def _interval(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean and 95 % interval by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    mean = float(values.mean())
    return {"mean": mean, "low": float(mean - half), "high": float(mean + half)}


def print_report(console: Console, result: Mapping[str, Any]) -> None:
    """Tables of a `summary`."""
    table = _table("Loss over that of random growth, five forks", ("1", "2", "3", "4", "5"))
    for method, found in result.items():
        growths = [f"{ratio:.2f}" for ratio in found["forks"]["per_growth"]]
        table.add_row(method, *growths, *_told(found["forks"]))
    published = [f"{ratio:.2f}" for ratio in PUBLISHED]
    table.add_row("published", *published, f"{np.mean(PUBLISHED):.3f}", "", "")
    console.print(table)
    whole = {method: found["whole"] for method, found in result.items() if "whole" in found}
    print_ends(console, "Loss over that of random growth, whole runs", whole)


def print_ends(console: Console, title: str, ratios: Mapping[str, Mapping[str, float]]) -> None:
    """A table of `ratio_interval` by method, with further columns if there are any."""
    known = ("mean", "low", "high", "better")
    extra = [name for name in next(iter(ratios.values())) if name not in known]
    table = _table(title, (), extra)
    for method, found in ratios.items():
        further = [f"{found[name]:.3g}" for name in extra]
        table.add_row(method, *_told(found), *further)
    console.print(table)


def _table(title: str, before: Sequence[str], after: Sequence[str] = ()) -> Table:
    table = Table(title=title)
    table.add_column("begins with", no_wrap=True)
    for heading in (*before, "mean", "95 % interval", "better in", *after):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _told(found: Mapping[str, float]) -> tuple[str, str, str]:
    interval = f"{found['low']:.3f} … {found['high']:.3f}"
    return f"{found['mean']:.3f}", interval, f"{100 * found['better']:.0f} %"
