"""The units of a layer as a whole: what makes them, passes them on and reads them, so that some can
be added or taken out.
"""  # noqa: D205

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tamiyo.host.layers import Layers
from tamiyo.host.modules import activation_name
from tamiyo.host.readers import Reader, unit_makers, unit_readers, units_made
from tamiyo.host.recorder import Flow
from tamiyo.host.recurrent import is_recurrent
from tamiyo.host.surgery import Surgery

__all__ = [
    "MOST_UNITS",
    "NewUnits",
    "UnitChain",
    "draw_units",
    "modules_between",
    "repeated_units",
    "rewire",
    "silent_units",
    "unit_chain",
    "unit_share",
]

MOST_UNITS = 1 << 16
"""Units that a layer may be given."""

_RESIZABLE: Sequence[type[nn.Module]] = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
"""Exact types: a subclass may do anything with its weight."""
_BATCH_NORMS: Sequence[type[nn.Module]] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RESHAPES = frozenset(("view", "_unsafe_view", "_reshape_alias"))
_ARITHMETIC = frozenset(("add", "sub", "mul", "div"))
_DROPOUT = frozenset(("bernoulli", "native_dropout", "feature_dropout"))


@dataclass(frozen=True, slots=True)
class UnitChain:
    """A layer's units from the weights that make them to those that read them."""

    layer_id: int
    units: int
    carriers: Sequence[int]
    """Batch normalisations and activations on the way."""
    readers: Sequence[Reader]


@dataclass(frozen=True, slots=True)
class NewUnits:
    """What units that are added begin with."""

    values: Mapping[str, torch.Tensor]
    """Slices of each parameter that makes units, by its name."""
    sources: torch.Tensor | None = None
    """Units that they repeat, whose statistics and outgoing weights they take; without it they
    have the statistics of a new batch normalisation and outgoing weights of zero."""

    @property
    def weight(self) -> torch.Tensor:
        """Incoming weights of a linear or convolutional layer."""
        return self.values["weight"]

    @property
    def bias(self) -> torch.Tensor | None:
        """Its biases."""
        return self.values.get("bias")


def unit_chain(layers: Layers, layer_id: int) -> UnitChain | None:
    """The chain of a layer's units, or `None` where their number cannot be changed safely.

    Beyond what `unit_readers` asks for, nothing on the way may mix units (layer and group
    normalisation do) or depend on their number in a way that a recording does not show: a reshape
    whose sizes the model's own code may have written out, or arithmetic with a constant.
    """
    found = unit_readers(layers, layer_id, every_layer=True)
    units = units_made(layers.module(layer_id))
    if found is None or units is None:
        return None
    readers = [reader.layer_id for reader in found.readers]
    if any(not _resizable(layers.module(i)) for i in (layer_id, *readers)):
        return None
    carriers: list[int] = []
    for source, target, flow in _ways(layers, layer_id, readers):
        if not _keeps_any_number(layers, source, target, flow, units):
            return None
        if target not in readers:
            carriers.append(target)
    if not all(_carries(layers.module(carrier)) for carrier in carriers):
        return None
    return UnitChain(layer_id, units, carriers, found.readers)


def unit_share(amount: float, units: int) -> int:
    """Number of units that `amount` means: a fraction of `units` below 1, at least one."""
    return max(1, round(amount * units if amount < 1 else amount))


def draw_units(module: nn.Module, count: int) -> NewUnits:
    """New units by the layer's own scheme (`reset_parameters`), drawn on the CPU.

    Args:
        module: A linear, convolutional or recurrent layer.
        count: How many.
    """
    makers = unit_makers(module, every_layer=True)
    # A twin without a copy of the weights, which may be large.
    twin = copy.copy(module)
    twin._parameters = dict(module._parameters)
    for maker in makers:
        parameter = module.get_parameter(maker.name)
        shape = list(parameter.shape)
        shape[maker.axis] += count * maker.blocks
        twin._parameters[maker.name] = nn.Parameter(torch.empty(shape, dtype=parameter.dtype))
    twin.reset_parameters()  # type: ignore[operator] # all resizable layers have it
    values = {}
    for maker in makers:
        drawn, added = twin.get_parameter(maker.name).detach(), count * maker.blocks
        values[maker.name] = drawn.narrow(maker.axis, drawn.shape[maker.axis] - added, added)
    return NewUnits(values)


def silent_units(module: nn.Module, count: int) -> NewUnits:
    """New units with incoming weights and biases of zero.

    Args:
        module: A linear or convolutional layer.
        count: How many.
    """
    values = {}
    for maker in unit_makers(module):
        parameter = module.get_parameter(maker.name)
        shape = list(parameter.shape)
        shape[maker.axis] = count
        values[maker.name] = parameter.new_zeros(shape)
    return NewUnits(values)


def repeated_units(module: nn.Module, sources: torch.Tensor) -> NewUnits:
    """New units that do what others do.

    Args:
        module: A linear, convolutional or recurrent layer.
        sources: Numbers of the units to repeat.
    """
    values, units = {}, units_made(module) or 0
    for maker in unit_makers(module, every_layer=True):
        parameter = module.get_parameter(maker.name).detach()
        places = maker.positions(sources, units).to(parameter.device)
        values[maker.name] = parameter.index_select(maker.axis, places)
    return NewUnits(values, sources)


def rewire(
    surgery: Surgery,
    layers: Layers,
    chain: UnitChain,
    index: torch.Tensor,
    new: NewUnits | None = None,
) -> Sequence[tuple[Reader, nn.Parameter]]:
    """Give a layer other units, and everything that carries or reads them.

    Args:
        surgery: What makes the changes.
        layers: The layers.
        chain: The chain of the layer.
        index: Old number of each unit, -1 for a new one; integers of shape [new units].
        new: Values of the new ones in order.

    Returns:
        The readers with their weights as they are now.
    """
    module = layers.module(chain.layer_id)
    sources = None if new is None else new.sources
    for maker in unit_makers(module, every_layer=True):
        fresh = None if new is None else new.values[maker.name]
        places = maker.positions(index, chain.units)
        surgery.resize(module.get_parameter(maker.name), maker.axis, places, fresh)
    size = len(index)
    if not is_recurrent(module):
        linear = isinstance(module, nn.Linear)
        surgery.put(module.__dict__, "out_features" if linear else "out_channels", size)
    for carrier in chain.carriers:
        if type(layers.module(carrier)) in _BATCH_NORMS:
            _rewire_batch_norm(surgery, layers.module(carrier), index, sources)
    shapes = layers.flow.shapes if layers.flow is not None else {}
    for shown in (chain.layer_id, *chain.carriers):
        shape = list(shapes[layers.names[shown]])
        axis = 1 if layers.channels_second(shown) else -1
        shape[axis] = shape[axis] // chain.units * size
        surgery.put(shapes, layers.names[shown], tuple(shape))
    return [
        (reader, _rewire_reader(surgery, layers, reader, index, sources))
        for reader in chain.readers
    ]


def _rewire_batch_norm(
    surgery: Surgery, module: nn.Module, index: torch.Tensor, sources: torch.Tensor | None
) -> None:
    added = int((index < 0).sum())

    def fresh(values: torch.Tensor, value: float) -> torch.Tensor:
        if sources is not None:
            return values.detach()[sources.to(values.device)]
        return torch.full((added,), value)

    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if module._parameters.get(name) is not None:
            parameter = module.get_parameter(name)
            surgery.resize(parameter, 0, index, fresh(parameter, value))
    for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
        if module._buffers.get(name) is not None:
            surgery.resize_buffer(module, name, index, fresh(module.get_buffer(name), value))
    surgery.put(module.__dict__, "num_features", len(index))


def _rewire_reader(
    surgery: Surgery,
    layers: Layers,
    reader: Reader,
    index: torch.Tensor,
    sources: torch.Tensor | None,
) -> nn.Parameter:
    module = layers.module(reader.layer_id)
    weight = module.get_parameter(reader.name)
    fresh = None
    if sources is not None:
        columns = _positions(sources, reader.width).to(weight.device)
        fresh = weight.detach().index_select(reader.axis, columns)
    inputs = _positions(index, reader.width)
    if not is_recurrent(module):
        name = "in_features" if isinstance(module, nn.Linear) else "in_channels"
        surgery.put(module.__dict__, name, len(inputs))
    return surgery.resize(weight, reader.axis, inputs, fresh)


def _positions(index: torch.Tensor, width: int) -> torch.Tensor:
    """Index map over a reader's inputs, `width` of which belong to each unit."""
    spread = index[:, None] * width + torch.arange(width)
    return torch.where(index[:, None] < 0, -1, spread).flatten()


def _ways(layers: Layers, layer_id: int, readers: Sequence[int]) -> Iterator[tuple[int, int, Flow]]:
    """Every edge that the units flow along, from the layer up to its readers."""
    waiting = [layer_id]
    while waiting:
        source = waiting.pop()
        for target in layers.successors[source]:
            if layers.flow is not None:
                yield source, target, layers.flow.edges[layers.names[source], layers.names[target]]
            if target not in readers:
                waiting.append(target)


def _resizable(module: nn.Module) -> bool:
    hooked = module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return (type(module) in _RESIZABLE or is_recurrent(module)) and not hooked


def _carries(module: nn.Module) -> bool:
    """Whether units pass through a module one by one, whatever their number."""
    if type(module) in _BATCH_NORMS:
        return True
    single = all(parameter.numel() == 1 for parameter in module.parameters())
    return activation_name(module) is not None and single


def _keeps_any_number(layers: Layers, source: int, target: int, flow: Flow, units: int) -> bool:
    if flow.via & _RESHAPES and modules_between(layers, source, target) is None:
        return False
    if flow.via & _ARITHMETIC and not (flow.via & _DROPOUT and "add" not in flow.via):
        return False
    shape = layers.flow.shapes[layers.names[source]][1:] if layers.flow is not None else ()
    # A mean over the units themselves looks the same if another axis has their size.
    return "mean" not in flow.via or shape.count(units) == 1


def modules_between(layers: Layers, source: int, target: int) -> Sequence[nn.Module] | None:
    """Torch's own modules between two layers of one `nn.Sequential`; `None` for other layers.

    There a reshape is `nn.Flatten`, which adapts; in other code it may be `view(-1, 400)`.
    """
    first, last = layers.names[source].rpartition("."), layers.names[target].rpartition(".")
    parent = layers.model.get_submodule(first[0])
    if first[0] != last[0] or type(parent) is not nn.Sequential:
        return None
    keys = list(parent._modules)
    between = keys[keys.index(first[2]) + 1 : keys.index(last[2])]
    modules = [parent.get_submodule(key) for key in between]
    foreign = any(
        isinstance(module, nn.Unflatten) or not type(module).__module__.startswith("torch.nn.")
        for module in modules
    )
    return None if foreign else modules
