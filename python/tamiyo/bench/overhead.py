"""`python -m tamiyo.bench.overhead`: what attaching costs a run, end to end.

Two like models take turns of a few steps in one process, one with Tamiyo attached and one without:
on a shared machine, longer turns differ by more than what is to be measured. 64 steps of each are a
round, and the quotient of their times is one sample. Half-way the models change places, so that
what memory and cache give to one of them cancels out. A row in which Tamiyo is attached to neither
shows what the method itself cannot tell apart. Since half of the time belongs to the other model,
Tamiyo's shares of the time are halved here, and shares are reported of the run's own time.
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

import tamiyo

Floats: TypeAlias = npt.NDArray[np.float64]

__all__ = ["MODELS", "SCHEDULES", "Cost", "main", "measure"]

ROUND = 64
"""Steps of each model in a round, which so has its share of what is done at every 64th."""

TURN_SECONDS = 0.025
"""Long enough for the controller to finish, most of the time, what a step has made it do."""

WARM_UP_SECONDS = 2.0
"""After attaching: the model is recorded by then, and the first samples were taken."""

RESAMPLES = 10_000


class SmallTransformer(nn.Module):
    """A classifier of token sequences."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of shape [batch, 10] for token ids of shape [batch, length]."""
        logits: torch.Tensor = self.head(self.encoder(self.embed(tokens)).mean(1))
        return logits


def _mlp(inputs: int, width: int) -> nn.Module:
    hidden = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(hidden, nn.Linear(width, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 10),
    )


MODELS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "MLP 784-512-512-10, batch 128": (partial(_mlp, 784, 512), lambda: torch.randn(128, 784)),
    "CNN 28 × 28, batch 32": (_cnn, lambda: torch.randn(32, 1, 28, 28)),
    "transformer 4 × 128, 8 × 64 tokens": (
        SmallTransformer,
        lambda: torch.randint(1000, (8, 64)),
    ),
    "tiny MLP 64-64-64-10, batch 64": (partial(_mlp, 64, 64), lambda: torch.randn(64, 64)),
}
"""Models of the size that MNIST is learned with, and one so small that everything shows; each with
a source of batches.
"""

HALF_THE_TIME = {"probe_budget": 0.005, "snapshot_budget": 0.0025, "think_share": 0.005}
"""The shares that Tamiyo keeps by default, of a time of which half belongs to the other model."""

SCHEDULES: Mapping[str, Mapping[str, Any] | None] = {
    "without Tamiyo": None,
    "within 1 %": {},
    "every 64th step": {"probe_every": 64},
    "every 16th step": {"probe_every": 16},
    "every step": {"probe_every": 1},
}
"""Options of `tamiyo.attach` under which layers are measured; None does not attach."""


class _Training:
    """A run that goes on and on."""

    def __init__(self, model_name: str) -> None:
        torch.manual_seed(0)
        make_model, make_batch = MODELS[model_name]
        self.model = make_model()
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)
        self.control: tamiyo.Control | None = None
        batches = [make_batch() for _ in range(16)]
        labelled = [(batch, torch.randint(10, (len(batch),))) for batch in batches]
        self._batches = itertools.cycle(labelled)

    def step(self) -> None:
        inputs, labels = next(self._batches)
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(inputs), labels)
        loss.backward()
        self.optimizer.step()
        if self.control is not None:
            self.control.step(loss=loss)

    def seconds(self, steps: int) -> float:
        """How long so many steps take."""
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        return time.perf_counter() - started

    def steps_in(self, seconds: float) -> int:
        """The power of two, at most a round, of steps that take about so long."""
        step = self.seconds(ROUND // 4) / (ROUND // 4)
        return min(ROUND, 1 << max(0, round(math.log2(seconds / step))))

    @contextmanager
    def attached(self, options: Mapping[str, Any] | None) -> Iterator[None]:
        """Attach and warm up, or do the same without Tamiyo."""
        if options is not None:
            options = {**HALF_THE_TIME, **options}
            self.control = tamiyo.attach(self.model, self.optimizer, **options)
        started = time.perf_counter()
        while time.perf_counter() < started + WARM_UP_SECONDS:
            self.step()
        try:
            yield
        finally:
            if self.control is not None:
                self.control.remove()
            self.control = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one schedule costs one model."""

    model: str
    schedule: str
    step_ms: float
    """Of training alone, median of the rounds."""
    ratio: float
    """Time with Tamiyo over time without: geometric mean of the medians of the two halves."""
    low: float
    high: float
    """95 % bootstrap interval of the ratio, rounds drawn within their halves."""
    probe: float
    """Share of the run's own time spent measuring layers, by the host's clock."""
    host: float
    """Share spent in `control.step()`, measuring included, by the host's own clock."""
    samples: int
    """Times that the layers were measured."""
    rounds: int


def measure(model_name: str, schedule: str, *, seconds: float, seed: int = 0) -> Cost:
    """Train two models in turns, half of the time with Tamiyo on the one, half on the other."""
    models = _Training(model_name), _Training(model_name)
    alone, halves, stats = [], [], []
    for subject, other in (models, models[::-1]):
        turn = other.steps_in(TURN_SECONDS)
        quotients: list[float] = []
        with subject.attached(SCHEDULES[schedule]):
            started = time.perf_counter()
            while time.perf_counter() < started + seconds / 2 or not quotients:
                turns = [(subject.seconds(turn), other.seconds(turn)) for _ in range(ROUND // turn)]
                with_it, without = map(sum, zip(*turns, strict=True))
                quotients.append(with_it / without)
                alone.append(without / ROUND)
            if subject.control is not None:
                stats.append(subject.control.stats()["host"])
        halves.append(np.log(quotients))
    low, high = np.exp(_interval(halves, np.random.default_rng(seed)))
    ratio = float(np.exp(np.mean([np.median(half) for half in halves])))
    # The host's clock counts the other model's turns too.
    own = (1 + ratio) / ratio
    return Cost(
        model=model_name,
        schedule=schedule,
        step_ms=1e3 * float(np.median(alone)),
        ratio=ratio,
        low=float(low),
        high=float(high),
        probe=own * float(np.mean([each["probe_overhead"] for each in stats] or [0.0])),
        host=own * float(np.mean([each["overhead"] for each in stats] or [0.0])),
        samples=sum(each["samples"] for each in stats),
        rounds=sum(map(len, halves)),
    )


def _interval(halves: Sequence[Floats], generator: np.random.Generator) -> Floats:
    """95 % bootstrap interval of the mean of the halves' medians, shape [2]."""
    means = np.mean(
        [
            np.median(half[generator.integers(len(half), size=(RESAMPLES, len(half)))], axis=1)
            for half in halves
        ],
        axis=0,
    )
    return np.quantile(means, [0.025, 0.975])


def table(costs: Sequence[Cost]) -> str:
    """The costs as a Markdown table."""
    lines = [
        "| model | ms a step | layers measured | end to end | 95 % interval | measuring | host |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {cost.model} | {cost.step_ms:.2f} | {cost.schedule} | × {cost.ratio:.3f} "
        f"| {cost.low:.3f} … {cost.high:.3f} | {cost.probe:.2%} | {cost.host:.2%} |"
        for cost in costs
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every model under every schedule and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tamiyo.bench.overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each line of the table")
    parser.add_argument("--model", action="append", help="only models whose name begins so")
    parser.add_argument("--schedule", action="append", help="only schedules that begin so")
    parser.add_argument("--json", action="store_true", help="print JSON lines, not a table")
    options = parser.parse_args(arguments)
    chosen = [
        (model, schedule)
        for model in MODELS
        for schedule in SCHEDULES
        if options.model is None or model.startswith(tuple(options.model))
        if options.schedule is None or schedule.startswith(tuple(options.schedule))
    ]
    if not chosen:
        parser.error("no such model or schedule")
    torch.set_num_threads(1)
    console = Console(stderr=True)
    costs = [
        measure(model, schedule, seconds=options.seconds)
        for model, schedule in track(chosen, "Training", console=console)
    ]
    if options.json:
        print("\n".join(json.dumps(asdict(cost)) for cost in costs))
    else:
        print(table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
