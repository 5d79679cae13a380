"""The runs that are attacked: small networks on real data, with many optimisers and batch sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["STEPS", "SUBJECTS", "Data", "Subject", "subject"]

STEPS = 300
"""Optimiser steps of a whole run."""

Parameters = Iterator[nn.Parameter]


@dataclass(frozen=True)
class Data:
    """A data set that scikit-learn ships: inputs [N, ...], classes or values [N]."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    classes: int
    """0 for a regression."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy, or the mean squared error of a regression."""
        if self.classes:
            return functional.cross_entropy(outputs, targets)
        return functional.mse_loss(outputs.squeeze(-1), targets)


@dataclass(frozen=True)
class Subject:
    """One kind of run.

    Attributes:
        name: Short name for tables.
        data: Loads what it is trained on.
        make_model: Builds the model from the global random state.
        make_optimizer: Builds the optimiser for its parameters.
        batch_size: Samples per step.
        make_scheduler: Builds a scheduler that is stepped after every optimiser step.
        clip: Bound of the gradients' norm, if it is clipped.
        slow: Whether its steps take several times as long, so that it is attacked half as often.
    """

    name: str
    data: Callable[[], Data]
    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[[Parameters], torch.optim.Optimizer]
    batch_size: int
    make_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    clip: float | None = None
    slow: bool = False

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches; the same seed gives the same order."""
        inputs, targets = self.data().train
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(targets), generator=generator)
            for chunk in order.split(self.batch_size)[: len(targets) // self.batch_size]:
                yield inputs[chunk], targets[chunk]

    def held_out_loss(self, model: nn.Module) -> float:
        """Loss on data that was never trained on, in evaluation mode."""
        data, was_training = self.data(), model.training
        model.eval()
        with torch.no_grad():
            loss = float(data.loss(model(data.held_out[0]), data.held_out[1]))
        model.train(was_training)
        return loss


def _split(inputs: Tensor, targets: Tensor, classes: int) -> Data:
    parts = train_test_split(
        inputs, targets, test_size=0.3, random_state=0, stratify=targets if classes else None
    )
    return Data((parts[0], parts[2]), (parts[1], parts[3]), classes)


@cache
def _digits(shape: Sequence[int] = (64,)) -> Data:
    inputs, targets = load_digits(return_X_y=True)
    images = torch.tensor(inputs / 16, dtype=torch.float32).reshape(-1, *shape)
    return _split(images, torch.tensor(targets), 10)


def _standardized(values: Any) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    return (tensor - tensor.mean(0)) / tensor.std(0)


@cache
def _cancer() -> Data:
    inputs, targets = load_breast_cancer(return_X_y=True)
    return _split(_standardized(inputs), torch.tensor(targets), 2)


@cache
def _diabetes() -> Data:
    inputs, targets = load_diabetes(return_X_y=True)
    return _split(_standardized(inputs), _standardized(targets), 0)


def _mlp(
    inputs: int,
    outputs: int,
    width: int = 64,
    depth: int = 2,
    activation: type[nn.Module] = nn.ReLU,
    dropout: float = 0.0,
) -> nn.Module:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(width if index else inputs, width), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _cnn(*, norm: bool) -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        between = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *between, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 8), *block(8, 16), nn.Flatten(), nn.Linear(16 * 4, 10))


class _Transformer(nn.Module):
    """Reads the eight rows of an image as tokens."""

    def __init__(self, width: int = 24, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(8, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Class scores [B, 10] of images [B, 8, 8]."""
        hidden: Tensor = self.encoder(self.embed(rows) + self.position)
        scores: Tensor = self.head(self.norm(hidden.mean(1)))
        return scores


def _images() -> Data:
    return _digits((1, 8, 8))


def _rows() -> Data:
    return _digits((8, 8))


def _cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def _one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS + 1)


SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW

SUBJECTS: Sequence[Subject] = (
    Subject("mlp-sgd", _digits, lambda: _mlp(64, 10), lambda p: SGD(p, 0.05, momentum=0.9), 64),
    Subject("mlp-adam", _digits, lambda: _mlp(64, 10), lambda p: Adam(p, 1e-3), 32),
    Subject(
        "mlp-dropout-small-batch",
        _digits,
        lambda: _mlp(64, 10, dropout=0.3),
        lambda p: AdamW(p, 3e-3),
        8,
    ),
    Subject(
        "mlp-tanh-deep",
        _digits,
        lambda: _mlp(64, 10, width=32, depth=5, activation=nn.Tanh),
        lambda p: SGD(p, 0.1, nesterov=True, momentum=0.8),
        32,
    ),
    Subject(
        "mlp-cosine-clipped",
        _digits,
        lambda: _mlp(64, 10, activation=nn.GELU),
        lambda p: AdamW(p, 5e-3),
        64,
        _cosine,
        1.0,
    ),
    Subject("mlp-cancer", _cancer, lambda: _mlp(30, 2, 32), lambda p: SGD(p, 0.05), 16),
    Subject("mlp-regression", _diabetes, lambda: _mlp(10, 1, 32), lambda p: Adam(p, 1e-3), 16),
    Subject("cnn-sgd", _images, lambda: _cnn(norm=False), lambda p: SGD(p, 0.05, momentum=0.9), 32),
    Subject("cnn-norm-adam", _images, lambda: _cnn(norm=True), lambda p: Adam(p, 2e-3), 32),
    Subject(
        "cnn-small-batch",
        _images,
        lambda: _cnn(norm=True),
        lambda p: torch.optim.RMSprop(p, 1e-3),
        8,
    ),
    Subject("transformer-adamw", _rows, _Transformer, lambda p: AdamW(p, 2e-3), 32, slow=True),
    Subject(
        "transformer-one-cycle",
        _rows,
        lambda: _Transformer(dropout=0.0),
        lambda p: AdamW(p, 1e-3),
        32,
        _one_cycle,
        1.0,
        slow=True,
    ),
)


def subject(name: str) -> Subject:
    """The subject of that name."""
    return next(subject for subject in SUBJECTS if subject.name == name)
