"""`tamiyo bench`: benchmarks over live runs, a command for each."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tamiyo.bench.evaluation.lineup import named_folders
from tamiyo.bench.faults import POLICIES, Plan, all_cells, experiment, load_plugin
from tamiyo.bench.faults.bars import judged, missed
from tamiyo.bench.faults.cohort import Rows
from tamiyo.bench.faults.companions.controlled import add_networks
from tamiyo.bench.faults.data import MissingExtraError
from tamiyo.bench.faults.experiment import PolicyChangedError
from tamiyo.bench.faults.presets import PRESETS
from tamiyo.bench.faults.report import html, markdown
from tamiyo.bench.outputs import check_writable
from tamiyo.bench.pools import one_line_when_interrupted
from tamiyo.policy.checkpoint import CheckpointError

__all__ = ["bench"]

bench = typer.Typer(help="Benchmarks over live training runs.", no_args_is_help=True)

_DEFAULT = ("learned", "oracle")


@bench.callback()
def _root() -> None:
    """Keeps `faults` a command of its own while it is the only one."""


@bench.command()
def faults(  # noqa: PLR0913, PLR0917 - its arguments are the options of the command
    preset: Annotated[str, typer.Option(help=f"Which runs: {', '.join(PRESETS)}.")] = "smoke",
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"Who is beside them: {', '.join(POLICIES)}; may be repeated."),
    ] = None,
    rows: Annotated[
        Path, typer.Option(help="A line of JSON for each run; those that it holds are not made.")
    ] = Path("faults.jsonl"),
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(help="A file that registers more; all its faults are run. May be repeated."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Another network, with the rules behind it, as a policy; may be repeated.",
        ),
    ] = None,
    only: Annotated[
        str, typer.Option(help="Only cells whose name (fault|architecture|data) contains this.")
    ] = "",
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each faulty cell.")] = None,
    healthy_seeds: Annotated[
        int | None, typer.Option(min=0, help="Runs of each healthy cell.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a bar is missed.")] = False,
    report_path: Annotated[
        Path | None,
        typer.Option("--report", help="Where to write the report as well; with plots as .html."),
    ] = None,
) -> None:
    """Inject faults into live training runs, and see who rescues them.

    Every run is also made with nobody beside it and, ten times, without its fault. Interrupt it at
    any moment: the same command goes on. Exits with 1 when --check was given and a bar is missed,
    with 2 when something asked for is not there.

    Example: tamiyo bench faults --preset smoke --policy rules --policy oracle --workers 2
    """
    torch.set_num_threads(1)
    try:
        networks = named_folders(also or [])
        add_networks(networks)
        policies = list(dict.fromkeys((*(policy or _DEFAULT), *networks)))
        plan = _plan(preset, plugin or (), only, seeds, healthy_seeds)
        for path in filter(None, (rows, report_path)):
            check_writable(path)
        with one_line_when_interrupted(f"Interrupted: the same command goes on, from {rows}."):
            found = _run(plan, policies, rows, workers, plugin or (), networks)
    except (ValueError, CheckpointError, MissingExtraError, PolicyChangedError) as error:
        raise typer.BadParameter(str(error)) from None
    options = {"--policy": policy or _DEFAULT, "--also": also or (), "--plugin": plugin or ()}
    command = _command(preset, options, only, seeds, healthy_seeds)
    said = markdown(found, command)
    typer.echo(said)
    if report_path is not None:
        page = html(found, command) if report_path.suffix == ".html" else f"{said}\n"
        report_path.write_text(page, encoding="utf-8")
    wrong = missed(found, judged(policies)) if check else []
    for one in wrong:
        typer.echo(f"missed: {one}", err=True)
    raise typer.Exit(1 if wrong else 0)


def _plan(
    preset: str, plugins: Sequence[Path], only: str, seeds: int | None, healthy_seeds: int | None
) -> Plan:
    """Which runs are asked for.

    Raises:
        ValueError: an unknown preset, or no cell is left.
        PluginError: a plugin cannot be used.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    before = set(all_cells())
    for path in plugins:
        load_plugin(path)
    plan = PRESETS[preset]().with_cells(cell for cell in all_cells() if cell not in before)
    plan = plan.narrowed(only, seeds, healthy_seeds)
    if not plan.cells and not plan.healthy_cells:
        raise ValueError(f"no cell of {preset} contains {only!r}")
    return plan


def _command(
    preset: str,
    several: Mapping[str, Sequence[str | Path]],
    only: str,
    seeds: int | None,
    healthy_seeds: int | None,
) -> str:
    """How to have the same runs again."""
    words = ["tamiyo", "bench", "faults", "--preset", preset]
    for name, values in several.items():
        words += (str(word) for value in values for word in (name, value))
    words += ("--only", only) if only else ()
    words += () if seeds is None else ("--seeds", str(seeds))
    words += () if healthy_seeds is None else ("--healthy-seeds", str(healthy_seeds))
    return shlex.join(words)


def _run(
    plan: Plan,
    policies: Sequence[str],
    path: Path,
    workers: int,
    plugins: Sequence[Path],
    networks: Mapping[str, Path],
) -> Rows:
    with Progress(
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("runs", total=len(plan.jobs(policies)))
        found = experiment(
            plan,
            policies,
            path,
            workers=workers,
            plugins=plugins,
            networks=networks,
            on_row=lambda _row: progress.advance(task),
        )
    return Rows(found)
