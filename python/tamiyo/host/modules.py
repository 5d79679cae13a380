"""What counts as a layer, which parameters belong to it, and the words for its kind."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import fx, nn
from torch.nn.modules import batchnorm, conv, instancenorm
from torch.nn.modules.conv import _ConvTransposeNd

__all__ = [
    "ACTIVATIONS",
    "ATEN_ACTIVATIONS",
    "Ownership",
    "activation_name",
    "has_channel_axis",
    "is_normalization",
    "unit_axis",
]

ACTIVATIONS: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Hardtanh: "hardtanh",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.LogSigmoid: "log_sigmoid",
}
"""Element-wise activation modules and their names (those of `torch.nn.functional`)."""

ATEN_ACTIVATIONS: Mapping[str, str] = {
    **{name: name for name in ("relu", "leaky_relu", "gelu", "silu", "mish", "tanh", "sigmoid")},
    **{name: name for name in ("elu", "celu", "selu", "hardtanh", "hardsigmoid", "hardswish")},
    "softplus": "softplus",
    "log_sigmoid_forward": "log_sigmoid",
    "rrelu_with_noise": "rrelu",
}
"""ATen operators that are activations when a model calls them as functions."""

_NORMALIZATIONS = (
    batchnorm._BatchNorm,
    instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
_CHANNELS_SECOND = (
    conv._ConvNd,
    batchnorm._BatchNorm,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


def activation_name(module: nn.Module) -> str | None:
    """Name of an activation module, `None` for anything else."""
    return ACTIVATIONS.get(type(module))


def is_normalization(module: nn.Module) -> bool:
    """Whether the module normalises: a torch class, or a custom one called `...Norm`."""
    return isinstance(module, _NORMALIZATIONS) or type(module).__name__.endswith("Norm")


def has_channel_axis(module: nn.Module) -> bool:
    """Whether the units of the module's output lie along axis 1 (else along the last axis)."""
    if isinstance(module, fx.GraphModule):
        # A convolution with something grafted on it has kept its kernel.
        weight = module._parameters.get("weight")
        return weight is not None and weight.dim() > 2
    return isinstance(module, _CHANNELS_SECOND)


def unit_axis(module: nn.Module) -> int | None:
    """Axis of the output's units in the weight: 0, or 1 for transposed convolutions.

    `None` where rows of the weight are not units of the output.
    """
    if isinstance(module, _ConvTransposeNd):
        return 1
    return 0 if isinstance(module, nn.Linear | conv._ConvNd) else None


@dataclass(slots=True)
class Ownership:
    """Which layer each parameter belongs to: the first module that holds it.

    A parametrised module (`torch.nn.utils.parametrize`) owns the parameters of its
    parametrisations. Built by `Ownership.of(model)`.
    """

    layers: dict[str, nn.Module] = field(default_factory=dict)
    """Modules that hold parameters or are activations or normalisations, by path."""
    owner: dict[int, str] = field(default_factory=dict)
    """`id` of a parameter to the path of the one layer that owns it."""
    parameters: dict[str, list[nn.Parameter]] = field(default_factory=dict)
    """Parameters by owner; a layer whose parameters are all tied to others' has an empty list."""
    held: dict[str, set[str]] = field(default_factory=dict)
    """Per layer the owners of everything it holds: itself and those it is tied to."""
    tied: set[str] = field(default_factory=set)
    """Layers with a parameter that another layer holds too."""
    leaves: set[str] = field(default_factory=set)
    """Layers without layers inside: a call of one is a call of the layer."""

    @classmethod
    def of(cls, model: nn.Module) -> "Ownership":
        """Walk the module tree once, in the order of `named_modules()`."""
        self = cls()
        for path, module in model.named_modules():
            layer = path.split(".parametrizations")[0] if ".parametrizations" in path else path
            if path.startswith("parametrizations"):
                layer = ""
            direct = [value for value in module._parameters.values() if value is not None]
            known = activation_name(module) is not None or is_normalization(module)
            if not (direct or (known and not module._modules)):
                continue
            self.layers.setdefault(layer, model.get_submodule(layer))
            self.parameters.setdefault(layer, [])
            held = self.held.setdefault(layer, {layer})
            for parameter in direct:
                owner = self.owner.setdefault(id(parameter), layer)
                held.add(owner)
                if owner != layer:
                    self.tied |= {owner, layer}
                elif all(parameter is not other for other in self.parameters[layer]):
                    self.parameters[layer].append(parameter)
        self.leaves = {
            path
            for path, module in self.layers.items()
            if hasattr(module, "parametrizations")
            or not any(child in self.layers for child in _inside(path, module))
        }
        return self

    def settle(self, used: Collection[str]) -> None:
        """Give tied parameters whose owner is never called to the first layer that uses them.

        Encoder-decoder models keep one shared embedding that nobody calls by that name.
        """
        for layer in used:
            for parameter in self.layers[layer]._parameters.values():
                owner = self.owner.get(id(parameter), layer)
                if parameter is None or owner in used:
                    continue
                self.parameters[owner] = [p for p in self.parameters[owner] if p is not parameter]
                self.parameters[layer].append(parameter)
                self.owner[id(parameter)] = layer
                for owners in self.held.values():
                    if owner in owners:
                        owners.add(layer)


def _inside(path: str, module: nn.Module) -> list[str]:
    prefix = f"{path}." if path else ""
    return [prefix + name for name, _ in module.named_modules() if name]
