"""What a host is: a small network, its data, its optimiser and its random seed.

A host is described completely before it trains: its first weights and the order of its batches
follow from the description, so that a batched program and a plain PyTorch loop can start from the
same place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.data import Dataset, dataset

__all__ = [
    "ACTIVATIONS",
    "BATCH",
    "Activation",
    "HostSpec",
    "Initialization",
    "Optimizer",
    "Schedule",
    "Wiring",
    "batch_order",
    "fresh_layer",
    "initial_layers",
    "rate_schedule",
]

Activation = Literal["relu", "leaky_relu", "elu", "tanh", "sigmoid"]
Optimizer = Literal["sgd", "adam"]
Wiring = Literal["plain", "residual", "skip"]
Schedule = Literal["constant", "cosine", "warmup"]
Initialization = Literal["scaled", "default"]

ACTIVATIONS: Sequence[Activation] = ("relu", "leaky_relu", "elu", "tanh", "sigmoid")
"""In the order in which a cohort numbers them."""
BATCH = 32
"""Samples per optimiser step."""
WARM_SHARE = 0.1
"""Share of the training in which a scheduled learning rate rises."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A multilayer perceptron and how it is trained.

    Wirings: `plain`; `residual`, where every hidden layer but the first adds its input to its
    output; `skip`, where the output of the first hidden layer is added to that of the last one.

    Raises:
        ValueError: widths that the wiring cannot add up, no hidden layer, or a negative rate.
    """

    data: str
    """Name of a data set, see `tamiyo.envs.training.data`."""
    widths: tuple[int, ...]
    """Units of the hidden layers."""
    wiring: Wiring = "plain"
    activation: Activation = "relu"
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    """Of SGD; Adam has its usual .9 and .999."""
    schedule: Schedule = "constant"
    """Of the learning rate, see `rate_schedule`."""
    initialization: Initialization = "scaled"
    """Of the weights, see `initial_layers`."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"a host needs hidden layers with units, not {self.widths}")
        if self.learning_rate <= 0 or not 0 <= self.momentum < 1:
            raise ValueError("the learning rate must be positive and the momentum in [0, 1)")
        added = {"plain": (), "residual": self.widths, "skip": (self.widths[0], self.widths[-1])}
        if len(set(added[self.wiring])) > 1:
            raise ValueError(f"layers that are added must be equally wide: {self.widths}")

    @property
    def hidden(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    @property
    def layers(self) -> int:
        """Number of linear layers, the last one included."""
        return len(self.widths) + 1

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return dataset(self.data)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features, units of each hidden layer, classes."""
        return (self.dataset.features, *self.widths, self.dataset.classes)

    def summed(self, layer: int) -> bool:
        """Whether the output of this linear layer is added to another one before it is read."""
        if self.wiring == "plain" or self.hidden < 2 or layer >= self.hidden:
            return False
        return self.wiring == "residual" or layer in (0, self.hidden - 1)


def initial_layers(spec: HostSpec) -> list[tuple[Floats, Floats]]:
    """Weights [in, out] and biases [out] of each linear layer.

    `default` is what `torch.nn.Linear` draws, biases as well: activations and gradients then shrink
    from layer to layer. `scaled` is normal with variance 2 / in for rectifiers (He et al., ICCV
    2015) and 2 / (in + out) for bounded activations (Glorot & Bengio, AISTATS 2010), with biases of
    zero. Its residual branches are scaled by 1 / sqrt(layers), so that sums do not grow with depth
    (as in GPT-2, Radford et al., 2019).
    """
    random = np.random.default_rng([spec.seed, 0])
    if spec.initialization == "default":
        return [
            (fresh_layer(random, *sizes), random.uniform(-1, 1, sizes[1]) / np.sqrt(sizes[0]))
            for sizes in pairwise(spec.sizes)
        ]
    layers = []
    for layer, (inputs, units) in enumerate(pairwise(spec.sizes)):
        bounded = spec.activation in ("tanh", "sigmoid")
        last = layer == spec.hidden
        deviation = np.sqrt(2.0 / (inputs + units) if bounded or last else 2.0 / inputs)
        if spec.wiring == "residual" and 0 < layer < spec.hidden:
            deviation /= np.sqrt(spec.hidden)
        layers.append((random.normal(0.0, deviation, (inputs, units)), np.zeros(units)))
    return layers


def fresh_layer(random: np.random.Generator, inputs: int, units: int) -> Floats:
    """Weights [in, out] as `torch.nn.Linear.reset_parameters` draws them: ± 1 / sqrt(in)."""
    bound = 1.0 / np.sqrt(inputs)
    return random.uniform(-bound, bound, (inputs, units))


def batch_order(spec: HostSpec, steps: int) -> npt.NDArray[np.int64]:
    """Training samples of each step, [steps, 32]: shuffled anew for each pass over the data."""
    random = np.random.default_rng([spec.seed, 1])
    samples = len(spec.dataset.train_labels)
    per_pass = samples // BATCH
    passes = -(-steps // per_pass)
    order = [random.permutation(samples)[: per_pass * BATCH] for _ in range(passes)]
    return np.concatenate(order).reshape(-1, BATCH)[:steps]


def rate_schedule(spec: HostSpec, steps: int) -> Floats:
    """Factors [steps] on the learning rate of each step of a training of that length.

    `cosine` falls to nothing (Loshchilov & Hutter, ICLR 2017); `warmup` rises linearly through the
    first tenth, from a tenth of the rate, before it falls likewise.
    """
    done = np.arange(steps) / steps
    if spec.schedule == "constant":
        return np.ones(steps)
    start = WARM_SHARE if spec.schedule == "warmup" else 0.0
    falling = np.clip((done - start) / (1.0 - start), 0.0, 1.0)
    cosine = 0.5 * (1.0 + np.cos(np.pi * falling))
    rising = 0.1 + 0.9 * done / WARM_SHARE
    return np.where(done < start, rising, cosine)
