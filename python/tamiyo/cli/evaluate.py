"""`tamiyo evaluate`: how good is a policy, compared with others on the same runs?"""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tamiyo.bench.evaluation.bars import not_judged
from tamiyo.bench.evaluation.card import card
from tamiyo.bench.evaluation.evaluation import Evaluation, Request
from tamiyo.bench.evaluation.evaluation import evaluate as run
from tamiyo.bench.evaluation.lineup import COHORTS, DEFAULT, LEARNED, Lineup, named_folders
from tamiyo.bench.evaluation.sheets import Sheet, sheets
from tamiyo.bench.evaluation.splits import GROUPS, SPLITS, find_splits
from tamiyo.bench.outputs import check_writable
from tamiyo.bench.pools import one_line_when_interrupted
from tamiyo.policy.checkpoint import MANIFEST, CheckpointError, shipped

__all__ = ["evaluate"]

SPLIT, CHECKED_SPLITS = "validation", "validation,test"
FEWEST_SEEDS = 10
"""Intervals of fewer are too narrow to be quoted, see `docs/evaluation.md`."""
MOST_SPACED = 9
"""Columns with room to spare between them in the 80 characters of a terminal."""


def evaluate(  # noqa: PLR0913, PLR0917 - its arguments are the options of the command
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Folder of the policy; by default the shipped one.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER", help="Another policy to compare with; may be repeated."
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help=f"Any of {', '.join((*SPLITS, *GROUPS))}, separated by commas. "
            f"By default {SPLIT}, with --check {CHECKED_SPLITS}."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Evaluation seeds of each split.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    hosts: Annotated[int, typer.Option(min=1, help="Runs of each seed.")] = 32,
    cohorts: Annotated[
        str,
        typer.Option(
            help=f"Any of {', '.join(COHORTS)} and other policies; by default all there is."
        ),
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a bar is missed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    card_path: Annotated[
        Path | None, typer.Option("--card", help="Where to write an evaluation card.")
    ] = None,
    rows_path: Annotated[
        Path | None, typer.Option("--rows", help="Where to write every run as a line of JSON.")
    ] = None,
) -> None:
    """Let policies treat the same training runs, and compare what became of them.

    Half of the runs have a fault. The cohorts are: nobody; one random action; periodic growth; the
    rules; the rules tuned to these faults; other policies that are named, such as the clone that
    one was refined from; the learned policy, alone and as it decides beside a live run; an oracle
    that is told the fault. Exits with 1 when --check was given and the learned policy misses a bar,
    with 2 when it cannot be read or what was asked for cannot be written.

    Example: tamiyo evaluate --split validation,test --check
    """
    try:
        lineup = _lineup(cohorts, checkpoint, named_folders(also or []))
        splits = find_splits(split or (CHECKED_SPLITS if check else SPLIT))
        request = Request(splits, lineup, seeds, hosts, first_seed)
        _try_checkpoints(lineup)
        for path in filter(None, (card_path, rows_path)):
            check_writable(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    notes = Console(stderr=True)
    with (
        one_line_when_interrupted("Interrupted: nothing was written."),
        Progress(console=notes, transient=True) as progress,
    ):
        task = progress.add_task("runs", total=seeds * hosts * len(splits))
        evaluation = run(request, workers, lambda job: progress.advance(task, job.hosts))
    command = _command(request, checkpoint)
    if as_json:
        typer.echo(json.dumps({"command": command, **evaluation.as_json()}, allow_nan=False))
    else:
        _print(Console(), evaluation)
    # Printed first: should the disk be full by now, not everything is lost.
    if card_path is not None:
        card_path.write_text(card(evaluation, command), encoding="utf-8")
    if rows_path is not None:
        with rows_path.open("w", encoding="utf-8") as lines:
            lines.writelines(f"{json.dumps(record)}\n" for record in evaluation.records())
    raise typer.Exit(_verdict(notes, evaluation) if check else 0)


def _lineup(cohorts: str, checkpoint: Path | None, others: dict[str, Path]) -> Lineup:
    """Who plays.

    Raises:
        ValueError: an unknown cohort, or no checkpoint for one.
    """
    names = tuple(filter(None, (name.strip() for name in cohorts.split(","))))
    names = names or (*COHORTS, *others)
    if checkpoint is None and {LEARNED, DEFAULT} & set(names):
        checkpoint = shipped()
        if checkpoint is None:
            raise ValueError("no policy comes with this installation: give the folder of one")
    return Lineup(names, checkpoint, others)


def _try_checkpoints(lineup: Lineup) -> None:
    """Make sure that all of them can be read.

    Raises:
        CheckpointError: one cannot; the text says where a training keeps its policies.
    """
    try:
        lineup.players()
    except CheckpointError as error:
        for folder in filter(None, (lineup.learned, *lineup.others.values())):
            if (folder / "policy" / MANIFEST).is_file():
                raise CheckpointError(f"{error}. Did you mean {folder / 'policy'}?") from None
        raise


def _command(request: Request, checkpoint: Path | None) -> str:
    """How to have the same figures again."""
    lineup = request.lineup
    words = ["tamiyo", "evaluate", *(() if checkpoint is None else (str(checkpoint),))]
    for name, folder in lineup.others.items():
        words += ("--also", f"{name}={folder}")
    words += ("--split", ",".join(split.name for split in request.splits))
    words += ("--seeds", str(request.seeds), "--hosts", str(request.hosts))
    words += () if request.first == 0 else ("--first-seed", str(request.first))
    return shlex.join((*words, "--cohorts", ",".join(lineup.names)))


def _verdict(console: Console, evaluation: Evaluation) -> int:
    """Say which bars are missed and by how much. Returns the exit code."""
    missed = [judgement for judgement in evaluation.judgements if not judgement.passed]
    for judgement in missed:
        console.print(f"[red]Missed[/red] {judgement}")
    if not missed:
        console.print(f"[green]All {len(evaluation.judgements)} bars are reached.[/green]")
    if unseen := not_judged(evaluation.results):
        names = "; ".join(bar.name for bar in unseen)
        console.print(f"Not looked at, because they hold for validation: {names}.")
    if (seeds := evaluation.request.seeds) < FEWEST_SEEDS:
        console.print(f"{seeds} seeds: {FEWEST_SEEDS} are the least that should be quoted.")
    return 1 if missed else 0


def _print(console: Console, evaluation: Evaluation) -> None:
    for result in evaluation.results:
        for sheet in sheets(result):
            console.print(_table(sheet))
            console.print()


def _table(sheet: Sheet) -> Table:
    table = Table(
        title=sheet.title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if len(sheet.head) <= MOST_SPACED else 0, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for place, heading in enumerate(sheet.head):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in sheet.rows:
        table.add_row(*row)
    return table
