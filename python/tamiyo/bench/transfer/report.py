"""What is printed: tables in Markdown, and the bars."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tamiyo.bench.evaluation.sheets import Sheet, span
from tamiyo.bench.transfer.figures import (
    Figures,
    false_alarms,
    faulty_figures,
    groups,
    healthy_figures,
    healthy_rows,
)
from tamiyo.bench.transfer.rows import Row

__all__ = ["BARS", "Bar", "missed", "report"]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure of the healthy runs has to keep to."""

    name: str
    figure: str
    bound: str
    """`value`, `low` or `high`."""
    least: float = float("-inf")
    most: float = float("inf")

    def missed(self, figures: Figures) -> str | None:
        """What is wrong, in words; what is unknown is not wrong."""
        value = float(getattr(figures[self.figure], self.bound))
        if value < self.least:
            return f"{self.name}: {value:.4f}, at least {self.least:g} is asked for"
        if value > self.most:
            return f"{self.name}: {value:.4f}, at most {self.most:g} is asked for"
        return None


BARS: Sequence[Bar] = (
    Bar("healthy runs to which something was done", "done", "value", most=0.05),
    Bar("accuracy gained on healthy runs, lower bound", "difference", "low", least=-0.005),
    Bar("runs that were changed by being watched", "disturbed", "value", most=0.0),
    Bar("runs with an exception, a warning or an error", "troubled", "value", most=0.0),
)


def missed(found: Mapping[str, Sequence[Row]]) -> list[str]:
    """The bars that a policy misses, in words.

    Raises:
        ValueError: there is no healthy run to hold against them.
    """
    wrong = []
    for policy, rows in found.items():
        healthy = healthy_rows(rows)
        if not healthy:
            raise ValueError("there are no healthy runs")
        figures = healthy_figures(healthy)
        wrong += [f"{policy}: {said}" for bar in BARS if (said := bar.missed(figures))]
    return wrong


def report(found: Mapping[str, Sequence[Row]]) -> str:
    """All tables.

    Args:
        found: Rows by policy.
    """
    return "\n\n".join(sheet.markdown() for sheet in _sheets(found) if sheet.rows)


def _sheets(found: Mapping[str, Sequence[Row]]) -> Iterator[Sheet]:
    healthy = {policy: healthy_rows(rows) for policy, rows in found.items()}
    whole = {policy: rows for policy, rows in healthy.items() if rows}
    yield Sheet("Healthy runs", ("policy", *_HEALTHY.values()), _lines(whole, _HEALTHY))
    for policy, rows in whole.items():
        parts = {
            **groups(rows, lambda row: f"read {row.watching['reading']}"),
            **groups(rows, _wiring),
            **groups(rows, lambda row: "attached late" if row.watching["late"] else "from step 0"),
        }
        yield Sheet(f"Healthy runs by kind: {policy}", ("", *_KIND.values()), _lines(parts, _KIND))
    yield Sheet("What was done to healthy runs", ("policy", *_ALARM), list(_alarms(found)))
    for policy, every in found.items():
        faults = groups((row for row in every if row.strike is not None), lambda row: row.fault)
        yield Sheet(f"Faults: {policy}", ("fault", *_FAULTY.values()), _fault_lines(faults))
    yield Sheet("What was done first to faulty runs", _FIRST, list(_first(found)))


_HEALTHY = {
    "runs": "runs",
    "decided": "anything decided",
    "done": "anything done",
    "kept": "anything kept",
    "difference": "accuracy − untouched",
    "disturbed": "changed by watching",
    "troubled": "errors",
}
_KIND = {name: _HEALTHY[name] for name in ("runs", "done", "kept", "difference")}
_FAULTY = {
    "runs": "runs",
    "harmed": "harmed",
    "lost": "accuracy lost",
    "acted": "acted on",
    "right": "first right",
    "recovered": "recovered",
    "early": "acted before",
}
_ALARM = ("run", "watched", "step", "what", "where", "by", "outcome", "accuracy", "reason")
_FIRST = ("policy", "fault", "what", "by", "outcome", "runs")


def _lines(parts: Mapping[str, Sequence[Row]], columns: Mapping[str, str]) -> list[Sequence[str]]:
    return [_line(name, rows, healthy_figures(rows), columns) for name, rows in parts.items()]


def _fault_lines(parts: Mapping[str, Sequence[Row]]) -> list[Sequence[str]]:
    return [_line(name, rows, faulty_figures(rows), _FAULTY) for name, rows in parts.items()]


def _line(
    name: str, rows: Sequence[Row], figures: Figures, columns: Mapping[str, str]
) -> list[str]:
    shown = [
        span(figures[column], 4 if column == "difference" else 2)
        for column in columns
        if column != "runs"
    ]
    return [name, str(len(rows)), *shown]


def _wiring(row: Row) -> str:
    norm = ", batch norm" if row.host["norm"] else ""
    return f"{row.host['family']}{norm}"


def _alarms(found: Mapping[str, Sequence[Row]]) -> Iterator[Sequence[str]]:
    for policy, rows in found.items():
        for row, act in false_alarms(rows):
            yield (
                policy,
                f"{row.number} ({row.host['family']}, {row.host['data']})",
                row.watching["reading"],
                str(act.step),
                _what(act.adaptation, act.parameters),
                ", ".join(act.target) or "whole model",
                act.by,
                act.outcome,
                f"{row.untouched:.3f} → {row.accuracy:.3f}",
                act.reason,
            )


def _first(found: Mapping[str, Sequence[Row]]) -> Iterator[Sequence[str]]:
    for policy, rows in found.items():
        counts = Counter((row.fault, *_first_act(row)) for row in rows if row.strike is not None)
        for (fault, *act), count in counts.items():
            yield policy, fault, *act, str(count)


def _first_act(row: Row) -> tuple[str, str, str]:
    act = row.first
    if act is None:
        return "nothing", "–", "–"
    return f"{act.adaptation}{' (right)' if row.right else ''}", act.by, act.outcome


def _what(adaptation: str, parameters: Mapping[str, object]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return f"{adaptation} ({said})" if said else adaptation
