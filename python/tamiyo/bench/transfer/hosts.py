"""Networks in plain PyTorch, as their users write them: what a policy is tried beside."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tamiyo.envs import Task
from tamiyo.envs.training.data import HELD_OUT_DATA, dataset

__all__ = ["ACTIVATIONS", "DATA", "DEEPEST", "LiveHost", "draw_host"]

Family = Literal["mlp", "cnn"]

DATA: Sequence[str] = ("digits", "breast_cancer", *HELD_OUT_DATA)
"""Two that policies are trained on, and those that they are not."""
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
}
OPTIMIZERS: Sequence[str] = ("sgd", "adam", "adamw")
CNN_SHARE = 1 / 6
IMAGE = (1, 8, 8)
CNN_BLOCKS = 2
DEEPEST = 6
"""Most hidden layers of a perceptron."""


@dataclass(frozen=True, slots=True)
class LiveHost:
    """A network and how it is trained; `build`, `optimizer` and `scheduler` make it.

    Attributes:
        data: Name of a data set, see `tamiyo.envs.training.data`.
        family: A multilayer perceptron, or a convolutional network on 8 × 8 images.
        width: Units of each hidden layer, or channels of the first block.
        depth: Hidden layers or blocks.
        activation: Name in `ACTIVATIONS`.
        norm: Whether a batch normalisation follows each hidden layer.
        dropout: Its probability; 0 is none.
        optimizer_name: `sgd` (momentum .9), `adam` or `adamw`.
        learning_rate: At the beginning.
        weight_decay: Of `adamw`.
        cosine: Whether the learning rate falls to zero along a cosine.
        batch_size: Samples per step.
    """

    data: str
    width: int
    depth: int
    activation: str = "relu"
    family: Family = "mlp"
    norm: bool = False
    dropout: float = 0.0
    optimizer_name: str = "sgd"
    learning_rate: float = 0.05
    weight_decay: float = 0.0
    cosine: bool = False
    batch_size: int = 64

    def task(self, steps: int) -> Task:
        """Data, batches and evaluation of a run of so many steps."""
        train, held_out = _samples(self.data, self.family)
        return Task(
            f"{self.family}-{self.data}",
            steps,
            self.build,
            self.optimizer,
            train,
            held_out,
            self.batch_size,
        )

    def build(self) -> nn.Module:
        """A model, with torch's own first weights, from the global random state."""
        return nn.Sequential(self._mlp() if self.family == "mlp" else self._cnn())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser for a model."""
        parameters, rate = model.parameters(), self.learning_rate
        if self.optimizer_name == "sgd":
            return torch.optim.SGD(parameters, rate, momentum=0.9)
        if self.optimizer_name == "adam":
            return torch.optim.Adam(parameters, rate)
        return torch.optim.AdamW(parameters, rate, weight_decay=self.weight_decay)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """What is stepped after every optimiser step, if anything."""
        if not self.cosine:
            return None
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def _mlp(self) -> OrderedDict[str, nn.Module]:
        data = dataset(self.data)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, self.depth + 1):
            inputs = data.features if number == 1 else self.width
            layers[f"hidden{number}"] = nn.Linear(inputs, self.width)
            self._add_after(layers, number, nn.BatchNorm1d(self.width) if self.norm else None)
        layers["output"] = nn.Linear(self.width, data.classes)
        return layers

    def _cnn(self) -> OrderedDict[str, nn.Module]:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = IMAGE[0]
        for number in range(1, self.depth + 1):
            inputs, channels = channels, self.width * 2 ** (number - 1)
            layers[f"conv{number}"] = nn.Conv2d(inputs, channels, 3, padding=1)
            self._add_after(layers, number, nn.BatchNorm2d(channels) if self.norm else None)
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        side = IMAGE[-1] // 2**self.depth
        layers["output"] = nn.Linear(channels * side**2, dataset(self.data).classes)
        return layers

    def _add_after(
        self, layers: OrderedDict[str, nn.Module], number: int, norm: nn.Module | None
    ) -> None:
        if norm is not None:
            layers[f"norm{number}"] = norm
        layers[f"act{number}"] = ACTIVATIONS[self.activation]()
        if self.dropout:
            layers[f"drop{number}"] = nn.Dropout(self.dropout)


def draw_host(number: int) -> LiveHost:
    """The host of that number; every draw has healthy settings."""
    random = np.random.default_rng([number, 0])

    def one_of(*choices: Any) -> Any:
        return choices[int(random.integers(len(choices)))]

    convolutional = random.random() < CNN_SHARE
    optimizer = one_of(*OPTIMIZERS)
    usual = 0.03 if optimizer == "sgd" else 1.5e-3
    return LiveHost(
        data="digits" if convolutional else one_of(*DATA),
        family="cnn" if convolutional else "mlp",
        width=one_of(8, 16) if convolutional else one_of(32, 64, 128, 256),
        depth=CNN_BLOCKS if convolutional else int(random.integers(1, DEEPEST, endpoint=True)),
        activation=one_of(*ACTIVATIONS),
        norm=random.random() < 0.25,
        dropout=one_of(0.0, 0.0, 0.0, 0.2),
        optimizer_name=optimizer,
        learning_rate=usual * float(np.exp(random.uniform(-0.7, 0.7))),
        weight_decay=one_of(0.01, 0.1) if optimizer == "adamw" else 0.0,
        cosine=random.random() < 0.33,
        batch_size=one_of(32, 64),
    )


@cache
def _samples(name: str, family: Family) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """To train on and held out: inputs [N, ...] and labels [N]."""
    data = dataset(name)
    shape = (-1, *IMAGE) if family == "cnn" else (-1, data.features)
    return (
        (torch.from_numpy(data.train).reshape(shape), torch.from_numpy(data.train_labels)),
        (torch.from_numpy(data.held_out).reshape(shape), torch.from_numpy(data.held_out_labels)),
    )
