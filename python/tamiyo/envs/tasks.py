"""Small real training tasks on data that an installed package ships."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

__all__ = ["Task", "digits_mlp"]


@dataclass(frozen=True)
class Task:
    """Everything about one training run but the loop.

    Attributes:
        name: Short name for tables.
        steps: Optimiser steps of a whole run.
        make_model: Builds the model from the global random state.
        make_optimizer: Builds the optimiser for a model.
        train: Inputs [N, features] and labels [N] to train on.
        held_out: The same, never trained on.
        batch_size: Samples per step.
    """

    name: str
    steps: int
    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    batch_size: int = 64

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches; the same seed gives the same order."""
        inputs, labels = self.train
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(labels), generator=generator)
            for chunk in order.split(self.batch_size)[: len(labels) // self.batch_size]:
                yield inputs[chunk], labels[chunk]

    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Loss and accuracy on the held-out data, in evaluation mode."""
        inputs, labels = self.held_out
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits = model(inputs)
            loss = nn.functional.cross_entropy(logits, labels).item()
            accuracy = (logits.argmax(1) == labels).float().mean().item()
        model.train(was_training)
        return loss, accuracy


@cache
def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    inputs, labels = load_digits(return_X_y=True)
    split = train_test_split(
        torch.tensor(inputs / 16, dtype=torch.float32),
        torch.tensor(labels),
        test_size=0.3,
        random_state=0,
        stratify=labels,
    )
    return (split[0], split[2]), (split[1], split[3])


def digits_mlp(steps: int = 3000, width: int = 256, depth: int = 3) -> Task:
    """Handwritten digits (scikit-learn, 1,797 images of 8 × 8) with a ReLU MLP and SGD momentum."""

    def make_model() -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(depth):
            layers[f"hidden{index + 1}"] = nn.Linear(width if index else 64, width)
            layers[f"relu{index + 1}"] = nn.ReLU()
        layers["output"] = nn.Linear(width, 10)
        return nn.Sequential(layers)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    train, held_out = _digits()
    return Task("digits-mlp", steps, make_model, make_optimizer, train, held_out)
