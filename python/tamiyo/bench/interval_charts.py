"""Figures with their intervals side by side, as inline SVG and as lines of text."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from tamiyo.bench.evaluation.resampling import Figure

__all__ = ["IntervalChart"]

WIDTH, NAMES, NUMBERS, ROW, EDGE = 760, 190, 60, 16, 24
"""Of the picture in pixels: all of it, its names, its numbers, one row, and above and below."""
COLUMNS = 41
"""Of the text."""


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Shares or differences, each with its interval; what is unknown is left out.

    Attributes:
        title: What they are.
        groups: By the name of a group and, in it, of a series; all groups have the same series.
        low: Left end of the axis; what lies beyond it is drawn there.
        high: Right end.
    """

    title: str
    groups: Mapping[str, Mapping[str, Figure]]
    low: float = 0.0
    high: float = 1.0

    def text(self) -> str:
        """A line for each: `o` is the figure, `-` its interval."""
        lines = []
        names = max((len(name) for name in self.groups), default=0)
        series = max((len(name) for group in self.groups.values() for name in group), default=0)
        for group, figures in self.groups.items():
            for place, (name, figure) in enumerate(figures.items()):
                head = f"{group if place == 0 else '':{names}}  {name:{series}}"
                lines.append(f"{head}  |{self._line(figure)}|{_number(figure)}")
        axis = f"{self.low:<{COLUMNS // 2}g}{self.high:>{COLUMNS - COLUMNS // 2}g}"
        return "\n".join((" " * (names + series + 5) + axis, *lines))

    def svg(self) -> str:
        """A figure of HTML. Series get the CSS classes `series-0`, `series-1`, … in order."""
        count = sum(1 + len(group) for group in self.groups.values())
        height = 2 * EDGE + ROW * count
        body = [self._rule(value, height) for value in (self.low, self._middle, self.high)]
        row = 0
        for group, figures in self.groups.items():
            y = EDGE + ROW * row + ROW - 5
            body.append(f'<text x="0" y="{y}" font-weight="bold">{escape(group)}</text>')
            for place, (name, figure) in enumerate(figures.items()):
                body.append(self._row(name, figure, place, EDGE + ROW * (row + 1 + place)))
            row += 1 + len(figures)
        return (
            f"<figure><figcaption>{escape(self.title)}</figcaption>"
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(body)}</svg></figure>'
        )

    @property
    def _middle(self) -> float:
        return (self.low + self.high) / 2

    def _share(self, value: float) -> float:
        """Place on the axis, from 0 to 1."""
        return float(np.clip((value - self.low) / (self.high - self.low), 0.0, 1.0))

    def _line(self, figure: Figure) -> str:
        line = [" "] * COLUMNS
        if np.isfinite(figure.value):
            ends = [figure.low, figure.high] if np.isfinite(figure.low) else [figure.value] * 2
            first, last = (round(self._share(end) * (COLUMNS - 1)) for end in ends)
            line[first : last + 1] = "-" * (last + 1 - first)
            line[round(self._share(figure.value) * (COLUMNS - 1))] = "o"
        return "".join(line)

    def _x(self, value: float) -> float:
        return NAMES + (WIDTH - NAMES - NUMBERS) * self._share(value)

    def _rule(self, value: float, height: int) -> str:
        x = self._x(value)
        return (
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{EDGE}" y2="{height - EDGE}"/>'
            f'<text x="{x:.1f}" y="{EDGE - 8}" text-anchor="middle">{value:g}</text>'
        )

    def _row(self, name: str, figure: Figure, place: int, top: int) -> str:
        middle, base = top + ROW / 2, top + ROW - 5
        parts = [f'<text x="12" y="{base}">{escape(name)}</text>']
        if np.isfinite(figure.low):
            low, high = self._x(figure.low), self._x(figure.high)
            parts.append(
                f'<line class="series-{place}" x1="{low:.1f}" x2="{high:.1f}" '
                f'y1="{middle}" y2="{middle}"/>'
            )
        if np.isfinite(figure.value):
            x = self._x(figure.value)
            parts.append(f'<circle class="series-{place}" cx="{x:.1f}" cy="{middle}" r="4"/>')
        shown = _number(figure).strip()
        parts.append(f'<text x="{WIDTH}" y="{base}" text-anchor="end">{shown}</text>')
        return "".join(parts)


def _number(figure: Figure) -> str:
    return f" {figure.value:.2f} of {figure.count}" if np.isfinite(figure.value) else " –"
