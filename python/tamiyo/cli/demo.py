"""`tamiyo demo`: does it rescue a run? Shown on a real one, in about a minute."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from tamiyo.bench import Comparison, compare
from tamiyo.cli.demo_display import DemoDisplay, outcome_table, seeds_table
from tamiyo.cli.demo_report import write_report
from tamiyo.contracts import Outcome
from tamiyo.envs import Fault, dead_layer, digits_mlp, learning_rate_raised

__all__ = ["demo", "verdict"]

CLOSE_SHARE = 0.8
"""Share of the seeds that must end close to the healthy run."""


def demo(
    seed: Annotated[int, typer.Option(help="Seed of the first comparison.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to compare.")] = 1,
    steps: Annotated[int, typer.Option(min=600, help="Optimiser steps of each run.")] = 3000,
    report: Annotated[
        Path, typer.Option(help="Where to write the HTML report of the first seed.")
    ] = Path("runs/demo.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network on handwritten digits three times: healthy; with two faults; with Tamiyo.

    A fifth of the way in, a layer's ReLUs die; at three fifths the learning rate is raised a
    hundredfold. Neither Tamiyo nor its policy is told. Exits with 1 when Tamiyo did not win back
    at least half of the lost accuracy, or when the faults did too little harm to prove anything.
    With several seeds, 8 of 10 must also end within three points of the healthy run.

    Example: tamiyo demo --seeds 10
    """
    console = Console(stderr=as_json)
    task = digits_mlp(steps)
    faults = (dead_layer(steps // 5, layer=1), learning_rate_raised(3 * steps // 5))
    comparisons = []
    with _one_thread():
        for current in range(seed, seed + seeds):
            with DemoDisplay(console, task, current) as display:
                comparisons.append(compare(task, faults, current, on_step=display.update))
            console.print()
            console.print(outcome_table(comparisons[-1]))
    report.parent.mkdir(parents=True, exist_ok=True)
    write_report(report, comparisons[0])
    console.print(f"Report: [link={report.resolve().as_uri()}]{report}[/link]")
    if seeds > 1:
        console.print(seeds_table(comparisons))
    if as_json:
        typer.echo(json.dumps([_summary(comparison, faults) for comparison in comparisons]))
    raise typer.Exit(verdict(console, comparisons))


def verdict(console: Console, comparisons: Sequence[Comparison]) -> int:
    """Say what was shown. Returns the exit code: 0 if Tamiyo rescued the runs, else 1."""
    empty = [str(c.seed) for c in comparisons if not c.proves_something]
    if empty:
        console.print(f"[red]Proved nothing:[/red] the faults cost under 20 points (seed {empty}).")
        return 1
    failed = [str(c.seed) for c in comparisons if not c.recovered_share >= 0.5]
    if failed:
        console.print(f"[red]Tamiyo did not win back half of the loss[/red] (seed {failed}).")
        return 1
    close = sum(c.is_close for c in comparisons)
    if len(comparisons) > 1 and close < CLOSE_SHARE * len(comparisons):
        console.print(f"[red]Only {close} of {len(comparisons)} seeds ended within 3 points.[/red]")
        return 1
    console.print(
        f"[green]Recovered.[/green] {close} of {len(comparisons)} "
        "ended within 3 points of the healthy run."
    )
    return 0


def _summary(comparison: Comparison, faults: tuple[Fault, ...]) -> dict[str, Any]:
    recoveries = [comparison.steps_to_recovery(comparison.rescued, fault) for fault in faults]
    return {
        "seed": comparison.seed,
        "accuracy": {run.name: run.accuracy for run in comparison.runs},
        "recovered_share": comparison.recovered_share,
        "within_3_points": comparison.is_close,
        "steps_to_recovery": [None if math.isnan(steps) else steps for steps in recoveries],
        "decisions": len(comparison.rescued.history),
        "rolled_back": comparison.decisions(Outcome.ROLLED_BACK),
        "probe_overhead": comparison.rescued.stats["host"]["probe_overhead"],
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Layers of 64 units train fastest on one thread; more only fight over the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
