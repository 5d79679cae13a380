"""`tamiyo train`: make a policy, from nothing to its checkpoint."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tamiyo.bench.faults.data import MissingExtraError
from tamiyo.bench.live_training.finetuning import finetune as go_on
from tamiyo.bench.policy_training import PRESETS, Ablation, Trained, train_policy
from tamiyo.bench.pools import one_line_when_interrupted
from tamiyo.policy.checkpoint import CheckpointError, shipped

__all__ = ["train"]


class Lessons(StrEnum):
    """Where a policy can go on learning."""

    FAULTS = "faults"


class Part(StrEnum):
    """Splits of the fault benchmark that may be learned from."""

    TRAIN = "train"
    VALIDATION = "validation"


def train(  # noqa: PLR0917 - its arguments are the options of the command
    preset: Annotated[
        str, typer.Option(help=f"How much of everything: {' or '.join(PRESETS)}.")
    ] = "quick",
    output: Annotated[
        Path, typer.Option(help="Folder of everything that is kept; goes on if there is some.")
    ] = Path("tamiyo-policy"),
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train the runs.")] = 1,
    device: Annotated[str, typer.Option(help="Where runs and networks train.")] = "cpu",
    without: Annotated[
        list[Ablation] | None, typer.Option(help="Leave a part out, to see what it is worth.")
    ] = None,
    finetune: Annotated[
        Lessons | None,
        typer.Option(help="Go on from a policy instead, with what live runs teach."),
    ] = None,
    split: Annotated[Part, typer.Option(help="Cells of the fault benchmark to learn from.")] = (
        Part.TRAIN
    ),
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of the policy to go on from; by default the shipped."),
    ] = None,
) -> None:
    """Train a policy on hundreds of small networks with injected faults.

    It watches an expert who is told the faults, is corrected, refines by reinforcement learning
    and is calibrated. Interrupt it at any moment: the same command goes on, and ends with the same
    policy. `quick` takes minutes, `default` the better part of an hour on two cores.

    With `--finetune faults` it goes on from a policy, beside live runs of the fault benchmark: a
    thousand states of them, and rehearsals of what it knows.

    Example: tamiyo train --preset quick --output my-policy --workers 2
    """
    if finetune is not None:
        if without or device != "cpu":
            raise typer.BadParameter("--without and --device are for trainings from the beginning")
        _finetune(start, output, split, seed, workers)
        return
    if preset not in PRESETS:
        raise typer.BadParameter(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    chosen = PRESETS[preset]
    # In the order of their definition, so that the order of the options makes no difference.
    ablations = [ablation for ablation in Ablation if ablation in (without or ())]
    for ablation in ablations:
        chosen = chosen.without(ablation)
    # Worker processes train the runs; more threads than that only wait for each other.
    torch.set_num_threads(1)
    words = ["tamiyo", "train", "--preset", preset, "--seed", str(seed)]
    words += [word for ablation in ablations for word in ("--without", ablation.value)]
    with _training(output) as bars:
        trained = train_policy(
            chosen,
            output,
            seed=seed,
            workers=workers,
            device=device,
            command=shlex.join(words),
            report=bars,
        )
    _print(Console(), trained)


def _finetune(start: Path | None, output: Path, split: Part, seed: int, workers: int) -> None:
    """Go on from a policy beside live runs."""
    checkpoint = start or shipped()
    if checkpoint is None:
        raise typer.BadParameter("no policy comes with this installation: give one with --from")
    torch.set_num_threads(1)
    words = ["tamiyo", "train", "--finetune", "faults", "--split", split.value, "--seed", str(seed)]
    words += [] if start is None else ["--from", str(start)]
    with _training(output) as bars:
        policy = go_on(
            checkpoint,
            output,
            split=split.value,
            seed=seed,
            workers=workers,
            command=shlex.join(words),
            report=bars,
        )
    console = Console()
    console.print(f"The policy is in {policy}. Next:", soft_wrap=True)
    console.print(f"  tamiyo bench faults --also tuned={policy}", soft_wrap=True)
    console.print(f"  tamiyo evaluate --also tuned={policy}", soft_wrap=True)


@contextmanager
def _training(output: Path) -> Iterator["_Bars"]:
    """Shows the progress, and says in one line why a training ended early."""
    goes_on = f"Interrupted: the same command goes on where it was, from {output}."
    try:
        with one_line_when_interrupted(goes_on), _Bars() as bars:
            yield bars
    except (ValueError, CheckpointError, MissingExtraError) as error:
        raise typer.BadParameter(str(error)) from None


class _Bars(Progress):
    """A progress bar for each stage."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description:22s}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
        )
        self._stages: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        shown = " ".join(
            f"{name} {figures[name]:.4g}"
            for name in ("states", "imitation", "return", "anchor_kl")
            if name in figures
        )
        if stage not in self._stages:
            self._stages[stage] = self.add_task(stage, total=total, figures=shown)
        self.update(self._stages[stage], completed=done)
        if shown:
            self.update(self._stages[stage], figures=shown)


def _print(console: Console, trained: Trained) -> None:
    if trained.gain is not None:
        gain = trained.gain
        console.print(
            f"Refined minus clone: {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) in J "
            f"over {gain.count} runs; the {trained.kept} one is kept."
        )
    console.print(f"The policy is in {trained.policy}. Next:", soft_wrap=True)
    console.print(f"  tamiyo evaluate {trained.policy}", soft_wrap=True)
