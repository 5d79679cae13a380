"""`python -m tamiyo.bench.transfer`: is a policy to be trusted beside live runs?"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from tamiyo.bench.outputs import check_writable
from tamiyo.bench.pools import one_line_when_interrupted
from tamiyo.bench.transfer.cases import STEPS, Case, faulty_cases, healthy_cases
from tamiyo.bench.transfer.experiment import count_runs, experiment
from tamiyo.bench.transfer.faults import FAULTS
from tamiyo.bench.transfer.report import missed, report
from tamiyo.policy.checkpoint import CheckpointError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and print what came of it.

    Args:
        arguments: Of the command line.

    Returns:
        0; with `--check` 1 when a policy misses a bar. Arguments or a checkpoint that cannot be
        used end the program with 2, an interrupt with 130.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    if min(asked.runs, asked.faulty) < 0 or asked.workers < 1 or asked.steps < 1:
        parser.error("runs must not be negative, and steps and workers be at least 1")
    if asked.check and not asked.runs:
        parser.error("--check needs healthy runs")
    try:
        check_writable(asked.rows)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    policies = list(dict.fromkeys(asked.policy or ["rules"]))
    cases = _cases(asked)
    with (
        one_line_when_interrupted(f"Interrupted: the same command goes on from {asked.rows}."),
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("runs", total=count_runs(cases, policies))
        try:
            found = experiment(
                cases,
                policies,
                asked.rows,
                workers=asked.workers,
                on_row=lambda _row: progress.advance(task),
            )
        except CheckpointError as error:
            parser.error(str(error))
    sys.stdout.write(report(found) + "\n")
    wrong = missed(found) if asked.check else []
    for said in wrong:
        sys.stderr.write(f"missed: {said}\n")
    return 1 if wrong else 0


def _cases(asked: argparse.Namespace) -> list[Case]:
    return [
        *healthy_cases(asked.runs, asked.steps),
        *faulty_cases(asked.faulty, FAULTS, asked.steps),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tamiyo.bench.transfer", description=__doc__)
    parser.add_argument(
        "--policy",
        action="append",
        help="rules, learned, oracle, none, or the folder of a checkpoint; may be repeated",
    )
    parser.add_argument("--runs", type=int, default=48, help="healthy runs")
    parser.add_argument("--faulty", type=int, default=6, help="runs of each fault")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of a run")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument(
        "--rows",
        type=Path,
        default=Path("transfer.jsonl"),
        help="a line of JSON for each run; those that it holds are not made again",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
