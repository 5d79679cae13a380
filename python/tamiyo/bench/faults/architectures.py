"""The six architectures, and how each is trained when nothing is wrong."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from tamiyo.bench.faults.data import DataSource
from tamiyo.bench.faults.registry import Registry

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "Architecture", "Network", "weighted_layers"]

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(-1),
}


@dataclass(frozen=True, slots=True)
class Network:
    """What a network is built from; a fault may change any of it.

    Attributes:
        shape: Of one sample.
        classes: Number of outputs.
        widths: Units or channels of each hidden layer, from the input on.
        activation: Name in `ACTIVATIONS`, after each hidden layer.
        output: The same, after the last layer; `None` is none, as it should be.
    """

    shape: tuple[int, ...]
    classes: int
    widths: tuple[int, ...]
    activation: str = "relu"
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of network, and the healthy way to train it.

    Attributes:
        name: By which it is found.
        build: A network, with first weights from torch's global random state.
        takes: Which data it is for.
        widths: Of its hidden layers.
        activation: Of its hidden layers.
        flat: Whether samples are given as [features].
        optimizer: `sgd` (momentum .9) or `adam`.
        learning_rate: Constant over the run.
        batch_size: Samples per step.
        steps: Optimiser steps of a run.
    """

    name: str
    build: Callable[[Network], nn.Module]
    takes: Callable[[DataSource], bool]
    widths: tuple[int, ...]
    activation: str = "relu"
    flat: bool = True
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 64
    steps: int = 800


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


def weighted_layers(model: nn.Module) -> list[str]:
    """Names of linear and convolutional layers in the order of use; the last is the output."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def _mlp(network: Network) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = prod(network.shape)
    for number, width in enumerate(network.widths, 1):
        layers[f"hidden{number}"] = nn.Linear(inputs, width)
        layers[f"act{number}"] = ACTIVATIONS[network.activation]()
        inputs = width
    return _finished(layers, inputs, network)


class _Block(nn.Module):
    """`x + second(act(first(x)))`, the residual block of a perceptron."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.first = nn.Linear(width, inner)
        self.act = ACTIVATIONS[activation]()
        self.second = nn.Linear(inner, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, width] to [B, width]."""
        outputs: Tensor = inputs + self.second(self.act(self.first(inputs)))
        return outputs


def _residual_mlp(network: Network) -> nn.Module:
    """The first width is that of the stream, the others are inside the blocks."""
    width, *inner = network.widths
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Linear(prod(network.shape), width)
    for number, units in enumerate(inner, 1):
        layers[f"block{number}"] = _Block(width, units, network.activation)
    return _finished(layers, width, network)


def _lenet(network: Network) -> nn.Module:
    """Two convolutions with pooling and a hidden linear layer (LeCun et al., 1998)."""
    channels, height, width = network.shape
    first, second, hidden = network.widths
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate([(channels, first), (first, second)], 1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers[f"act{number}"] = ACTIVATIONS[network.activation]()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["hidden"] = nn.Linear(second * (height // 4) * (width // 4), hidden)
    layers["act3"] = ACTIVATIONS[network.activation]()
    return _finished(layers, hidden, network)


def _cnn_1d(network: Network) -> nn.Module:
    """Three strided convolutions, after the one in the data set's paper (arXiv:2011.14439)."""
    inputs, length = network.shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, channels in enumerate(network.widths, 1):
        kernel = 5 if number == 1 else 3
        layers[f"conv{number}"] = nn.Conv1d(inputs, channels, kernel, stride=2, padding=1)
        layers[f"act{number}"] = ACTIVATIONS[network.activation]()
        inputs, length = channels, (length + 2 - kernel) // 2 + 1
    layers["flatten"] = nn.Flatten()
    return _finished(layers, inputs * length, network)


def _finished(layers: OrderedDict[str, nn.Module], inputs: int, network: Network) -> nn.Module:
    """With the output, and first weights after He et al. (2015), so that depth does no harm."""
    layers["output"] = nn.Linear(inputs, network.classes)
    if network.output is not None:
        layers["output_act"] = ACTIVATIONS[network.output]()
    model = nn.Sequential(layers)
    for name in weighted_layers(model):
        layer = model.get_submodule(name)
        nn.init.kaiming_normal_(layer.get_parameter("weight"), nonlinearity="relu")
        nn.init.zeros_(layer.get_parameter("bias"))
    return model


def _any(_source: DataSource) -> bool:
    return True


def _features(source: DataSource) -> bool:
    return len(source.shape) == 1


def _sequences(source: DataSource) -> bool:
    return len(source.shape) == 2


def _images(source: DataSource) -> bool:
    return len(source.shape) == 3


for _architecture in (
    Architecture("mlp_64_64", _mlp, _any, (64, 64), optimizer="sgd", learning_rate=0.03),
    Architecture("mlp_10x5", _mlp, _features, (5,) * 10, "elu", learning_rate=3e-3),
    Architecture("mlp_20", _mlp, _any, (32,) * 20, learning_rate=3e-3, steps=600),
    Architecture("residual_mlp", _residual_mlp, _any, (64, 64, 64, 64), steps=600),
    Architecture(
        "lenet",
        _lenet,
        _images,
        (8, 16, 64),
        flat=False,
        optimizer="sgd",
        learning_rate=0.03,
        steps=500,
    ),
    Architecture("cnn_1d", _cnn_1d, _sequences, (16, 16, 16), flat=False, learning_rate=1e-2),
):
    ARCHITECTURES.add(_architecture)
