"""`python -m tamiyo.bench.growth_digits`: ways to begin on mini-batches, other networks, Adam.

Small networks learn handwritten digits (scikit-learn's, 1,797 images of 8 × 8) for about 200 steps
on batches of 64; then two of their layers are given three units each on the live run, and training
goes on. Where a batch normalisation follows, only some ways to begin are possible.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

from tamiyo.bench.growth_live import INITIALIZATIONS, GrowingRun
from tamiyo.bench.growth_report import print_ends, ratio_interval
from tamiyo.contracts import Outcome
from tamiyo.envs import digits_mlp

__all__ = ["BASELINE", "NETWORKS", "OPTIMIZERS", "Ending", "main", "train"]

BASELINE = "zero_outgoing"
BEFORE, UNITS, RECORDED = 200, 3, 4
NO_GROWTH = "no growth"


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 10))


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)),
    )


def _normalized_cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 3, 3, padding=1, bias=False)),
        *(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


@dataclass(frozen=True, slots=True)
class Network:
    """What is grown, and where."""

    build: Callable[[], nn.Sequential]
    grown: Sequence[str]
    methods: Sequence[str] = (*INITIALIZATIONS, NO_GROWTH)


NETWORKS: Mapping[str, Network] = {
    "MLP": Network(_mlp, ("0", "2")),
    "CNN": Network(_cnn, ("1", "4")),
    "CNN with batch normalisation": Network(
        _normalized_cnn, ("1", "5"), (BASELINE, "net2net", "correlated", NO_GROWTH)
    ),
}
OPTIMIZERS: Mapping[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
    "Adam": lambda model: torch.optim.Adam(model.parameters(), 3e-3),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    loss: float
    """On all training images."""
    accuracy: float
    """On held-out images."""
    taken_back: bool


def train(network: Network, optimizer: str, method: str, seed: int, after: int) -> Ending:
    """One run.

    Args:
        network: What is trained and grown.
        optimizer: A name of `OPTIMIZERS`.
        method: How new units begin, or `NO_GROWTH`.
        seed: Draws weights and batches, and shifts the growth by up to 49 steps.
        after: Steps after the growth.

    Raises:
        RuntimeError: the host refused the growth.
    """
    task = digits_mlp()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network.build()
        trained, batches = OPTIMIZERS[optimizer](model), task.batches(seed)
        run, growth = GrowingRun(model, trained), BEFORE + seed % 50
        for step in range(1, growth + after + 1):
            if step == growth and method != NO_GROWTH:
                run.grow(network.grown, UNITS, method, RECORDED)
            inputs, labels = next(batches)
            trained.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            trained.step()
            run.step(loss)
        outcome = run.end()
        _, accuracy = task.evaluate(model)
        model.eval()
        with torch.no_grad():
            final = functional.cross_entropy(model(task.train[0]), task.train[1]).item()
    return Ending(final, accuracy, outcome is Outcome.ROLLED_BACK)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tamiyo.bench.growth_digits", description=__doc__
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0 on (20)")
    parser.add_argument("--after", type=int, default=100, help="steps after the growth (100)")
    parser.add_argument("--json", action="store_true", help="print all endings as JSON")
    options = parser.parse_args(arguments)
    if options.seeds < 2 or options.after < 1:
        parser.error("at least 2 seeds and 1 step")
    torch.set_num_threads(1)
    console = Console(stderr=True)
    told = {}
    for name, network in NETWORKS.items():
        for optimizer in OPTIMIZERS:
            endings = {
                method: [
                    train(network, optimizer, method, seed, options.after)
                    for seed in range(options.seeds)
                ]
                for method in track(network.methods, f"{name}, {optimizer}", console=console)
            }
            told[f"{name}, {optimizer}"] = _ratios(endings)
    if options.json:
        print(json.dumps(told))
    else:
        for title, ratios in told.items():
            print_ends(Console(), f"{title}: training loss over that of {BASELINE}", ratios)
    return 0


def _ratios(endings: Mapping[str, Sequence[Ending]]) -> dict[str, dict[str, float]]:
    base = endings[BASELINE]
    return {
        method: {
            **ratio_interval([a.loss / b.loss for a, b in zip(found, base, strict=True)]),
            "accuracy": sum(ending.accuracy for ending in found) / len(found),
            "taken_back": sum(ending.taken_back for ending in found),
        }
        for method, found in endings.items()
    }


if __name__ == "__main__":
    sys.exit(main())
