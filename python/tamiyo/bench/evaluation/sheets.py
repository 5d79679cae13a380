"""The tables of an evaluation, as text in rows and columns, for the terminal and for the card."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from tamiyo.bench.evaluation.figures import Figures
from tamiyo.bench.evaluation.lineup import NO_OP
from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.evaluation.result import CohortResult, SplitResult
from tamiyo.bench.html import html_table
from tamiyo.bench.markdown import markdown_table

__all__ = ["Sheet", "reliability_plot", "sheets", "span"]

PLOT_WIDTH = 40
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table; the first column is text, the others are numbers."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self, *, numbers: bool = False) -> str:
        """A heading and the table; see `markdown_table`."""
        return f"### {self.title}\n\n{markdown_table(self.head, self.rows, numbers=numbers)}"

    def html(self) -> str:
        """The same for `html_page`."""
        return f"<h2>{escape(self.title)}</h2>{html_table(self.head, self.rows)}"


def sheets(result: SplitResult) -> Iterator[Sheet]:
    """All tables of a split."""
    yield _cohorts(result)
    yield _details(result)
    trusted = [name for name, one in result.cohorts.items() if one.reliability["mass"]]
    if trusted:
        yield _trust(result, trusted)
    if result.pairs:
        rows = [(name, span(figure)) for name, figure in result.pairs.items()]
        yield Sheet("Paired comparisons in J", ("", "mean (95 % interval)"), rows)
    yield _grid(result, "J by fault", "objective", lambda one: one.kinds)
    yield _grid(result, "First right, labelled", "decision_accuracy", lambda one: one.kinds)
    if len(result.split.config.data) > 1:
        yield _grid(result, "J by data set", "objective", lambda one: one.data)


def span(figure: Figure, digits: int = 3) -> str:
    """A figure with its interval."""
    if np.isnan(figure.value):
        return NOTHING
    low, high = (_number(value, digits) for value in (figure.low, figure.high))
    return f"{_number(figure.value, digits)} ({low} … {high})"


def reliability_plot(cohort: CohortResult, bins: str = "width") -> str:
    """Confidence against frequency: `o` is where a bin should be, `#` where it is, `@` both."""
    lines = ["confidence  frequency  decisions"]
    for row in cohort.reliability[bins]:
        line = [" "] * (PLOT_WIDTH + 1)
        line[round(PLOT_WIDTH * row["confidence"])] = "o"
        place = round(PLOT_WIDTH * row["frequency"])
        line[place] = "@" if line[place] == "o" else "#"
        numbers = f"{row['confidence']:10.3f} {row['frequency']:10.3f} {row['count']:10.0f}"
        lines.append(f"{numbers}  |{''.join(line)}|")
    return "\n".join(lines)


def _cohorts(result: SplitResult) -> Sheet:
    head = ("cohort", "J (95 % interval)", "first right", "false alarms", "acc.")
    rows = [
        (
            name,
            span(one.overall["objective"]),
            span(one.overall["decision_accuracy"], 2),
            span(one.overall["false_alarms"], 2),
            _number(one.overall["accuracy"].value, 3),
        )
        for name, one in result.cohorts.items()
    ]
    runs = len(next(iter(result.rows.values())))
    return Sheet(f"{result.split.name}: {runs} runs", head, rows)


def _details(result: SplitResult) -> Sheet:
    head = ("cohort", "J, faulty", "J, healthy", "acting", "early", "delay", "acts")
    plain: Sequence[tuple[str, int]] = (
        ("acted_accuracy", 2),
        ("early_alarms", 2),
        ("delay", 0),
        ("actions", 2),
    )
    rows = [
        (
            name,
            span(one.overall["objective_faulty"], 2),
            span(one.overall["objective_healthy"]),
            *(_number(one.overall[figure].value, digits) for figure, digits in plain),
        )
        for name, one in result.cohorts.items()
    ]
    return Sheet("Faulty and healthy runs apart", head, rows)


def _trust(result: SplitResult, names: Sequence[str]) -> Sheet:
    figures = ("ece", "ece_width", "ece_acted", "auroc")
    head = ("cohort", "ECE, mass", "ECE, width", "ECE, acting", "AUROC")
    rows = [
        (name, *(span(result.cohorts[name].overall[figure], 2) for figure in figures))
        for name in names
    ]
    return Sheet("Confidence and uncertainty", head, rows)


def _grid(
    result: SplitResult,
    title: str,
    figure: str,
    groups: Callable[[CohortResult], Mapping[str, Figures]],
) -> Sheet:
    """One figure by group of runs and cohort, where it is about any of the group."""
    # Nothing to see of those who did nothing.
    shown = {name: groups(one) for name, one in result.cohorts.items() if name != NO_OP}
    any_cohort = groups(next(iter(result.cohorts.values())))
    rows = [
        (
            name,
            str(found[figure].count),
            *(_number(one[name][figure].value, 2) for one in shown.values()),
        )
        for name, found in any_cohort.items()
        if found[figure].count
    ]
    return Sheet(title, ("", "runs", *shown), rows)


def _number(value: float, digits: int) -> str:
    """Without the zero before the point, as tables are narrow."""
    if np.isnan(value):
        return NOTHING
    # A rounded zero has no sign.
    text = f"{round(float(value), digits) + 0.0:.{digits}f}"
    return re.sub(r"^(-?)0\.", r"\1.", text)
