"""`python -m tamiyo.bench.fine_tuning`: a policy before and after learning on unseen pairs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.progress import Progress

from tamiyo.bench.evaluation.evaluation import Evaluation, Request, evaluate
from tamiyo.bench.evaluation.lineup import LEARNED, Lineup
from tamiyo.bench.evaluation.sheets import sheets
from tamiyo.bench.evaluation.splits import Split
from tamiyo.bench.fine_tuning.tuning import EXPERIENCES, PAIRS, fine_tuned
from tamiyo.bench.pools import one_line_when_interrupted
from tamiyo.policy.checkpoint import CheckpointError, shipped

__all__ = ["main"]

TUNED = "tuned-{}"
"""Cohort of the policy that was fine-tuned with a seed."""
HOSTS = 32
"""Runs of each evaluation seed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune, evaluate before and after, and print the tables as Markdown.

    Args:
        arguments: Of the command line. Those that cannot be used end the program with 2.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    checkpoint = shipped() if asked.checkpoint is None else asked.checkpoint
    if checkpoint is None:
        parser.error("no policy comes with this installation: give the folder of one")
    if min(asked.seeds, asked.trainings, asked.workers) < 1:
        parser.error("seeds, trainings and workers must be at least 1")
    torch.set_num_threads(1)
    pairs = list(dict.fromkeys(asked.pair or PAIRS))
    with (
        one_line_when_interrupted("Interrupted: nothing was written."),
        TemporaryDirectory() as directory,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("runs", total=len(pairs) * asked.seeds)
        for name in pairs:
            folder = Path(directory) / name
            try:
                lineup = _lineup(checkpoint, PAIRS[name], asked.trainings, folder)
            except CheckpointError as error:
                parser.error(str(error))
            request = Request([PAIRS[name]], lineup, asked.seeds, HOSTS)
            found = evaluate(request, asked.workers, lambda _job: progress.advance(task))
            sys.stdout.write(_tables(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tamiyo.bench.fine_tuning",
        description=f"Fine-tune a policy with {EXPERIENCES} experiences of networks and data that "
        "it has never seen, and compare it there, on other runs, with what it was.",
    )
    parser.add_argument("checkpoint", nargs="?", type=Path, help="default: the shipped policy")
    parser.add_argument("--pair", action="append", choices=tuple(PAIRS), help="default: all")
    parser.add_argument("--trainings", type=int, default=3, help="with a seed each (default: 3)")
    parser.add_argument("--seeds", type=int, default=10, help="to evaluate on (default: 10)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    return parser


def _lineup(checkpoint: Path, pair: Split, trainings: int, directory: Path) -> Lineup:
    """The policy before, and after each of its trainings."""
    others = {
        TUNED.format(seed): fine_tuned(checkpoint, pair, seed, directory / str(seed))
        for seed in range(trainings)
    }
    return Lineup(("rules", LEARNED, "oracle", *others), checkpoint, others)


def _tables(found: Evaluation) -> str:
    parts = [sheet.markdown(numbers=True) for one in found.results for sheet in sheets(one)]
    return "\n\n".join(parts) + "\n\n"


if __name__ == "__main__":
    main()
