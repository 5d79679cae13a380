"""What the demo shows while it runs, and the tables at its end."""

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tamiyo.bench import Comparison, TrainingRecord
from tamiyo.bench.rescue import RUN_NAMES
from tamiyo.contracts import AdaptationDecision, AdaptationResult, ModelTopology, Outcome
from tamiyo.control import Control
from tamiyo.envs import Task

__all__ = ["DemoDisplay", "describe_effect", "describe_target", "outcome_table", "seeds_table"]

REFRESH_SECONDS = 0.1
OUTCOME_STYLES = {
    Outcome.APPLIED: "yellow",
    Outcome.KEPT: "green",
    Outcome.ROLLED_BACK: "magenta",
    Outcome.REFUSED: "red",
    Outcome.EXPIRED: "dim",
    Outcome.FAILED: "red",
}


class DemoDisplay:
    """Progress bars, a strip of layer health and the decisions, live; call `update` every step."""

    def __init__(self, console: Console, task: Task, seed: int) -> None:
        self._title = f"{task.name} · seed {seed}"
        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>5}/{task.total} steps"),
            TextColumn("loss {task.fields[loss]:>8.4f}"),
            TextColumn("held-out {task.fields[accuracy]:>6.1%}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bars = {
            name: self._progress.add_task(
                name, total=task.steps, loss=math.nan, accuracy=math.nan, start=False
            )
            for name in RUN_NAMES
        }
        self._live = Live(console=console, auto_refresh=False)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, record: TrainingRecord, control: Control | None) -> None:
        """Take note of one more step, and redraw when it is time to."""
        now = time.monotonic()
        bar = self._progress.tasks[self._bars[record.name]]
        done = len(record.losses)
        if done > 1 and done < (bar.total or 0) and now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        self._progress.start_task(bar.id)
        self._progress.update(
            bar.id, completed=done, loss=record.losses[-1], accuracy=record.accuracy
        )
        self._live.update(self._draw(control), refresh=True)

    def _draw(self, control: Control | None) -> Panel:
        parts: list[Progress | Text | Table] = [self._progress]
        title = self._title
        if control is not None:
            title += f" · decisions by policy: {control.policy.name}"
            parts += [
                health_strip(control.health()),
                decision_table(control.history, control.topology),
            ]
        return Panel(Group(*parts), title=title)


def health_strip(health: dict[str, float]) -> Text:
    """One block per layer, coloured from red (0) to green (1); grey where nothing was measured."""
    strip = Text("layer health  ")
    for name, score in health.items():
        if math.isnan(score):
            strip.append(f" {name} –", style="dim")
        else:
            colour = f"rgb({round(220 * (1 - score))},{round(170 * score)},60)"
            strip.append(f" {name} ", style="dim")
            strip.append(f"▇{score:.2f}", style=colour)
    return strip


def decision_table(
    history: Sequence[tuple[AdaptationDecision, AdaptationResult]],
    topology: ModelTopology | None,
) -> Table:
    """Decisions with where, why and what they did."""
    table = Table(expand=True, box=None, pad_edge=False)
    for heading in ("step", "decision", "where", "why", "effect"):
        table.add_column(heading, justify="right" if heading == "step" else "left")
    for decision, result in history:
        table.add_row(
            str(decision.issued_at_step),
            decision.adaptation,
            describe_target(decision, topology),
            decision.reason,
            Text(describe_effect(result), style=OUTCOME_STYLES[result.outcome]),
        )
    return table


def describe_target(decision: AdaptationDecision, topology: ModelTopology | None) -> str:
    """Names of the layers that a decision is about."""
    if not decision.target:
        return "whole model"
    if topology is None:
        return ", ".join(str(layer) for layer in decision.target)
    return ", ".join(topology.nodes[layer].name for layer in decision.target)


def describe_effect(result: AdaptationResult) -> str:
    """What came of a decision, with the measured loss where there is one."""
    text = result.outcome.value.replace("_", " ")
    if result.loss_before is not None and result.loss_after is not None:
        text += f", loss {result.loss_before:.3g} → {result.loss_after:.3g}"
    if result.outcome in (Outcome.REFUSED, Outcome.FAILED):
        text += f": {result.reason}"
    return text


def outcome_table(comparison: Comparison) -> Table:
    """The end of one comparison in numbers, a column for each run."""
    table = Table(title=f"Seed {comparison.seed}", title_justify="left")
    table.add_column("")
    for run in comparison.runs:
        table.add_column(run.name, justify="right")

    def row(heading: str, cell: Callable[[TrainingRecord], str]) -> None:
        table.add_row(heading, *(cell(run) for run in comparison.runs))

    def controlled(cell: Callable[[TrainingRecord], str]) -> Callable[[TrainingRecord], str]:
        return lambda run: cell(run) if run.stats else "–"

    row("held-out accuracy", lambda run: f"{run.accuracy:.1%}")
    for fault in comparison.rescued.faults:
        recoveries = [
            _steps(comparison.steps_to_recovery(run, fault)) if run.faults else "–"
            for run in comparison.runs
        ]
        table.add_row(f"steps to recovery: {fault.name}", *recoveries)
    row("decisions", controlled(lambda run: str(len(run.history))))
    row("rolled back", controlled(lambda _run: str(comparison.decisions(Outcome.ROLLED_BACK))))
    row("probe overhead", controlled(lambda run: f"{run.stats['host']['probe_overhead']:.2%}"))
    row("wall time", lambda run: f"{run.seconds:.1f} s")
    return table


def seeds_table(comparisons: Sequence[Comparison]) -> Table:
    """Every seed in one row."""
    table = Table(title="All seeds", title_justify="left")
    for heading in ("seed", *RUN_NAMES, "won back", "within 3 points"):
        table.add_column(heading, justify="right")
    for comparison in comparisons:
        table.add_row(
            str(comparison.seed),
            *(f"{run.accuracy:.1%}" for run in comparison.runs),
            f"{comparison.recovered_share:.0%}",
            "yes" if comparison.is_close else "[red]no[/red]",
        )
    return table


def _steps(count: float) -> str:
    return "never" if math.isnan(count) else f"{count:.0f}"
