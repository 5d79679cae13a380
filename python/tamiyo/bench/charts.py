"""Line charts as inline SVG: enough for a report that must be one file without scripts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Mark", "line_chart"]

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 14, 34
MAX_POINTS = 600
LARGEST = 1e300
"""Larger values count as infinite, so that differences between values stay finite."""


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x`, with a text that shows on hover; `kind` is its CSS class."""

    x: float
    text: str
    kind: str


def line_chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    marks: Sequence[Mark] = (),
    log: bool = False,
) -> str:
    """An SVG figure. Non-finite values leave gaps; `log` draws the vertical axis logarithmically.

    The axis spans all but the largest hundredth of the values, which are drawn at its upper edge,
    so that one spike does not flatten everything else. Series get the CSS classes `series-0`,
    `series-1`, … in order.
    """
    shown = {name: _thin(points) for name, points in series.items()}
    values = [y for points in shown.values() for _x, y in points if _drawable(y, log)]
    if not values:
        return f"<figure><figcaption>{escape(title)}: nothing measured</figcaption></figure>"
    last = max(x for points in shown.values() for x, _y in points)
    values.sort()
    axis = _Axis(values[0], values[-1 - len(values) // 100], last, log)
    body = [axis.draw(), *(axis.mark(mark) for mark in marks)]
    legend = []
    for index, (name, points) in enumerate(shown.items()):
        body += [f'<polyline class="series-{index}" points="{run}"/>' for run in axis.runs(points)]
        legend.append(f'<span class="series-{index}">{escape(name)}</span>')
    return (
        f"<figure><figcaption>{escape(title)} <small>{' '.join(legend)}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg></figure>"
    )


class _Axis:
    """Maps values to the page and draws the frame."""

    def __init__(self, low: float, high: float, last: float, log: bool) -> None:
        self._log = log
        self._low, self._high = (math.log10(low), math.log10(high)) if log else (low, high)
        margin = 1e-9 * max(1.0, abs(self._low), abs(self._high))
        if self._high - self._low < margin:  # a constant is drawn across the middle
            self._low, self._high = self._low - margin, self._high + margin
        self._last = last or 1.0

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self._last

    def y(self, value: float) -> float:
        level = math.log10(value) if self._log else value
        share = min(1.0, (level - self._low) / (self._high - self._low))
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    def runs(self, points: Sequence[tuple[float, float]]) -> list[str]:
        """Polyline coordinates, one string per stretch without gaps."""
        runs: list[list[str]] = [[]]
        for x, y in points:
            if _drawable(y, self._log):
                runs[-1].append(f"{self.x(x):.1f},{self.y(y):.1f}")
            elif runs[-1]:
                runs.append([])
        return [" ".join(run) for run in runs if run]

    def mark(self, mark: Mark) -> str:
        x = self.x(mark.x)
        return (
            f'<line class="{mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"><title>{escape(mark.text)}</title></line>'
        )

    def draw(self) -> str:
        parts = []
        for level in _ticks(self._low, self._high):
            value = 10**level if self._log else level
            y = self.y(value)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
            )
        parts += [
            f'<text x="{self.x(tick):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{tick:g}</text>'
            for tick in _ticks(0, self._last)
        ]
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between two others: multiples of 1, 2 or 5 times a power of 10.

    For a span too narrow to hold any at this size of numbers, its ends.
    """
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    if last - first > 10 or last <= first:
        return [low, high]
    return [step * index for index in range(first, last + 1)]


def _drawable(value: float, log: bool) -> bool:
    return abs(value) <= LARGEST and (value > 0 or not log)


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `MAX_POINTS` points: of each stretch the largest value, so that no spike is lost."""
    stride = math.ceil(len(points) / MAX_POINTS)
    if stride <= 1:
        return points
    chunks = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [
        max(chunk, key=lambda point: point[1] if math.isfinite(point[1]) else -math.inf)
        if any(math.isfinite(y) for _x, y in chunk)
        else chunk[0]
        for chunk in chunks
    ]
