"""What the policy that ships has to reach, and by how much it does or does not."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tamiyo.bench.evaluation.result import SplitResult

__all__ = ["BARS", "Bar", "Judgement", "judge", "not_judged"]

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<=": operator.le,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure, or the distance between two, against a limit."""

    name: str
    figure: tuple[str, str]
    """Name (see `SplitResult.figure`) and `value`, `low` or `high`."""
    comparison: str
    limit: float
    beyond: tuple[str, str] | None = None
    """A figure to be taken off the first one."""
    everywhere: bool = False
    """Whether it holds for every split, or only for validation."""


BARS: Sequence[Bar] = (
    Bar(
        "learned above rules, intervals apart",
        ("learned.objective", "low"),
        ">",
        0.0,
        beyond=("rules.objective", "high"),
        everywhere=True,
    ),
    Bar(
        "rules above no-op, intervals apart",
        ("rules.objective", "low"),
        ">",
        0.0,
        beyond=("no-op.objective", "high"),
        everywhere=True,
    ),
    Bar("share of the oracle's J", ("learned / oracle", "value"), ">=", 0.85),
    Bar("decision accuracy", ("learned.decision_accuracy", "value"), ">", 0.80),
    Bar("false alarms on healthy runs", ("learned.false_alarms", "value"), "<=", 0.05),
    Bar("no measurable harm to healthy runs", ("learned.objective_healthy", "low"), ">=", -0.005),
    Bar("ECE, 15 bins of equal mass", ("learned.ece", "value"), "<=", 0.05),
    Bar("ECE, 10 bins of equal width", ("learned.ece_width", "value"), "<=", 0.05),
    Bar("AUROC of the uncertainty", ("learned.auroc", "value"), ">=", 0.75),
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One bar on one split."""

    split: str
    bar: Bar
    value: float
    """NaN where a cohort did not play or a figure is unknown."""

    @property
    def passed(self) -> bool:
        """Whether the bar is reached; what is unknown does not reach it."""
        return _COMPARISONS[self.bar.comparison](self.value, self.bar.limit)

    @property
    def margin(self) -> float:
        """How far beyond the limit, on the right side of it; negative if it is missed."""
        distance = self.value - self.bar.limit
        return -distance if self.bar.comparison == "<=" else distance

    def __str__(self) -> str:
        said = f"{self.split}: {self.bar.name}"
        if math.isnan(self.value):
            return f"{said}: unknown, {self.bar.comparison} {self.bar.limit:g} is asked for"
        found = f"{said}: {self.value:.3f}, {self.bar.comparison} {self.bar.limit:g} is asked for"
        if self.passed:
            return f"{found}, {self.margin:.3f} to spare"
        return f"{found}, missed by {-self.margin:.3f}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "split": self.split,
            "bar": self.bar.name,
            "value": None if math.isnan(self.value) else self.value,
            "comparison": self.bar.comparison,
            "limit": self.bar.limit,
            "passed": self.passed,
        }


def judge(results: Iterable[SplitResult], bars: Sequence[Bar] = BARS) -> list[Judgement]:
    """Every bar on every split that it holds for."""
    return [
        Judgement(result.split.name, bar, _value(result, bar))
        for result in results
        for bar in bars
        if _holds(bar, result)
    ]


def not_judged(results: Sequence[SplitResult], bars: Sequence[Bar] = BARS) -> list[Bar]:
    """Bars that hold for none of the splits, and so say nothing about them."""
    return [bar for bar in bars if not any(_holds(bar, result) for result in results)]


def _holds(bar: Bar, result: SplitResult) -> bool:
    return bar.everywhere or result.split.name == "validation"


def _value(result: SplitResult, bar: Bar) -> float:
    value = _read(result, bar.figure)
    return value if bar.beyond is None else value - _read(result, bar.beyond)


def _read(result: SplitResult, name: tuple[str, str]) -> float:
    figure = result.figure(name[0])
    return math.nan if figure is None else float(getattr(figure, name[1]))
