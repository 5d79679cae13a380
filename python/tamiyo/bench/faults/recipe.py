"""Everything about one run but the loop; a fault is a change of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tamiyo.bench.faults.architectures import Architecture, Network
from tamiyo.bench.faults.data import Dataset, dataset

__all__ = ["OPTIMIZERS", "Recipe", "Strike", "healthy_recipe"]

Optimizers: TypeAlias = Mapping[str, Callable[["Recipe", nn.Module], torch.optim.Optimizer]]

OPTIMIZERS: Optimizers = {
    "sgd": lambda recipe, model: torch.optim.SGD(
        model.parameters(), recipe.learning_rate, momentum=recipe.momentum
    ),
    "adam": lambda recipe, model: torch.optim.Adam(model.parameters(), recipe.learning_rate),
    "adagrad": lambda recipe, model: torch.optim.Adagrad(model.parameters(), recipe.learning_rate),
}


def _nothing(_model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
    pass


def _unchanged(inputs: Tensor) -> Tensor:
    return inputs


@dataclass(frozen=True, slots=True)
class Strike:
    """What goes wrong in mid-run.

    Attributes:
        step: Optimiser steps that are done before.
        change: What is done to model and optimiser, once.
        batch: What is done to the inputs of that step's batch alone.
        inputs: What is done to all inputs from then on, those held out as well.
        gradient_factor: What that step's gradients are multiplied with.
    """

    step: int
    change: Callable[[nn.Module, torch.optim.Optimizer], None] = _nothing
    batch: Callable[[Tensor], Tensor] = _unchanged
    inputs: Callable[[Tensor], Tensor] = _unchanged
    gradient_factor: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class Recipe:
    """How a run is built and trained.

    Attributes:
        network: What the network is built from.
        build: Builds it, see `Architecture`.
        data: What it learns, and what it is measured on.
        optimizer: Name in `OPTIMIZERS`.
        learning_rate: Constant over the run.
        momentum: Of `sgd`.
        batch_size: Samples per step.
        steps: Optimiser steps.
        loss: Of outputs [B, classes] and labels [B].
        initialize: Changes the first weights of a model.
        strike: What goes wrong in mid-run.
    """

    network: Network
    build: Callable[[Network], nn.Module]
    data: Dataset
    optimizer: str
    learning_rate: float
    batch_size: int
    steps: int
    momentum: float = 0.9
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    initialize: Callable[[nn.Module], None] | None = None
    strike: Strike | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in which every sample is seen once."""
        return max(1, len(self.data.train[1]) // self.batch_size)

    def make_model(self) -> nn.Module:
        """A model, with first weights from torch's global random state."""
        model = self.build(self.network)
        if self.initialize is not None:
            with torch.no_grad():
                self.initialize(model)
        return model

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model."""
        return OPTIMIZERS[self.optimizer](self, model)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches; the same seed gives the same order."""
        inputs, labels = self.data.train
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(labels), generator=generator)
            for chunk in order.split(self.batch_size)[: self.steps_per_epoch]:
                yield inputs[chunk], labels[chunk]


def healthy_recipe(architecture: Architecture, data: str) -> Recipe:
    """How an architecture is trained on a data set when nothing is wrong."""
    whole = dataset(data)
    if architecture.flat:
        (train, labels), (held_out, their) = whole.train, whole.held_out
        whole = Dataset((train.flatten(1), labels), (held_out.flatten(1), their))
    network = Network(
        tuple(whole.train[0].shape[1:]),
        whole.classes,
        architecture.widths,
        architecture.activation,
    )
    return Recipe(
        network=network,
        build=architecture.build,
        data=whole,
        optimizer=architecture.optimizer,
        learning_rate=architecture.learning_rate,
        batch_size=architecture.batch_size,
        steps=architecture.steps,
    )
