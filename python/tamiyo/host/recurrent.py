"""What the parameters of torch's recurrent layers mean: gates, hidden units, and who reads them.

A weight of an `nn.LSTM`, `nn.GRU` or `nn.RNN` has one block of rows for each gate, and every hidden
unit has one row in each block. `hidden_size` is one number, so that units can be added to all
stacked layers of a module together only. Those of the last one alone are seen from outside, and can
be recycled alone.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn

__all__ = [
    "gate_count",
    "given_state",
    "hidden_units",
    "input_weights",
    "is_recurrent",
    "keeps_hidden_units",
    "kept_state",
    "settle",
    "unit_columns",
    "unit_rows",
    "unusual_form",
]

_GATES: Mapping[str, int] = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_TYPES: Sequence[type[nn.Module]] = (nn.LSTM, nn.GRU, nn.RNN)
"""Exact types: a subclass may do anything with its weights."""
_ALONG_AN_AXIS = frozenset(
    (
        *("select", "slice", "transpose", "permute", "t"),
        *("mean", "sum", "max", "amax", "min", "amin"),
    )
)
"""Operators along an axis that a recording does not name: they keep units if it is another one."""
_RESHAPES = frozenset(("view", "_unsafe_view", "_reshape_alias"))
_FINAL_STATE = "output 1"
"""What a recording calls the second output: the last hidden states of all stacked layers."""


def is_recurrent(module: nn.Module) -> TypeGuard[nn.RNNBase]:
    """Whether it is a recurrent layer of torch, of any form, that holds its own parameters."""
    if not isinstance(module, nn.RNNBase) or type(module) not in _TYPES:
        return False
    return set(module._flat_weights_names) <= module._parameters.keys()


def unusual_form(module: nn.RNNBase) -> str | None:
    """What keeps the hidden units of a layer from being exchanged one by one, if anything does."""
    if not is_recurrent(module):
        return "it is parametrised or has code of its own"
    if module.bidirectional:
        return "it is bidirectional"
    return "its output is projected" if module.proj_size else None


def hidden_units(module: nn.Module) -> int | None:
    """Number of hidden units of a recurrent layer; `None` for any other module.

    Bidirectional layers and such with a projection do not count.
    """
    usual = isinstance(module, nn.RNNBase) and unusual_form(module) is None
    return module.get_parameter("weight_hh_l0").shape[1] if usual else None


def gate_count(module: nn.RNNBase) -> int:
    """Blocks of rows in each weight of a recurrent layer."""
    return _GATES[module.mode]


def unit_rows(module: nn.RNNBase, *, every_layer: bool) -> Sequence[str]:
    """Parameters in which a hidden unit has one row for each gate.

    Args:
        module: A layer with hidden units.
        every_layer: Of all stacked layers; else of the last one.
    """
    names: Any = module._all_weights
    return [name for layer in (names if every_layer else names[-1:]) for name in layer]


def unit_columns(module: nn.RNNBase, *, every_layer: bool) -> Sequence[str]:
    """Weights of the layer itself whose columns read its hidden units, see `unit_rows`."""
    readers = {f"weight_hh_l{layer}" for layer in range(module.num_layers)}
    if every_layer:
        # Each stacked layer reads the units of the one before.
        readers |= {f"weight_ih_l{layer}" for layer in range(1, module.num_layers)}
    return [name for name in unit_rows(module, every_layer=every_layer) if name in readers]


def input_weights(module: nn.RNNBase) -> Sequence[str]:
    """Weights of a recurrent layer whose columns read its input."""
    return ["weight_ih_l0", "weight_ih_l0_reverse"][: 2 if module.bidirectional else 1]


def keeps_hidden_units(
    module: nn.RNNBase, via: frozenset[str], shape: Sequence[int], *, every_layer: bool
) -> frozenset[str]:
    """The operators behind a recurrent layer that certainly leave its units apart and in order.

    An operator along some axis, such as the choice of the last step, is trusted if no other axis
    has the size of the units or can be cut to it: a reader with as many inputs then reads units.

    Args:
        module: A layer with hidden units.
        via: What lies between it and something that reads as many inputs as it has units.
        shape: Shape of its output in the recorded step.
        every_layer: Whether units of all stacked layers are meant, so that it does not matter which
            of them is read.
    """
    trusted = frozenset((_FINAL_STATE,) if every_layer or module.num_layers == 1 else ())
    # Unbatched inputs and packed sequences do not show the sizes of all axes, and after a reshape
    # an axis may be as long as anything.
    if len(shape) == 3 and not via & _RESHAPES:
        units, others = hidden_units(module) or 0, (*shape[:-1], module.num_layers)
        # A slice may cut a longer axis to that size.
        if all(size < units if "slice" in via else size != units for size in others):
            trusted |= _ALONG_AN_AXIS
    return trusted & via


def given_state(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a recurrent layer is called with an initial state."""
    state = args[1] if len(args) > 1 else kwargs.get("hx")
    return isinstance(module, nn.RNNBase) and state is not None


def kept_state(model: nn.Module, units: int) -> bool:
    """Whether a module of the model keeps a tensor that looks like hidden states.

    It may be the initial state of the next step, and nothing could give it other units.
    """
    return any(
        tensor.dim() > 1 and tensor.shape[-1] == units and not isinstance(tensor, nn.Parameter)
        for module in model.modules()
        for value in (*vars(module).values(), *module._buffers.values())
        for tensor in _held(value)
    )


def settle(module: nn.Module) -> None:
    """Let a recurrent layer know that other parameters have taken the place of its own.

    Torch calls it with a list that it keeps beside them, and checks its input against sizes that it
    keeps as well. Nothing happens to other modules.
    """
    if not is_recurrent(module):
        return
    weights: Any = [module._parameters[name] for name in module._flat_weights_names]
    module._flat_weights = weights
    module._flat_weight_refs = [weakref.ref(weight) for weight in weights]
    rows, module.input_size = module.get_parameter("weight_ih_l0").shape
    module.hidden_size = rows // gate_count(module)
    if _fit_together(module):
        module.flatten_parameters()


def _fit_together(module: nn.RNNBase) -> bool:
    """Whether all parameters have the sizes of the module; not while some are exchanged only."""
    rows, units = module.hidden_size * gate_count(module), module.hidden_size
    read = module.proj_size or units
    inner = read * (2 if module.bidirectional else 1)
    columns = {"weight_ih": inner, "weight_hh": read, "weight_hr": units}
    for name in module._flat_weights_names:
        parameter = module.get_parameter(name)
        kind, layer = name[:9], name.removesuffix("_reverse")
        if len(parameter) != (module.proj_size if kind == "weight_hr" else rows):
            return False
        wanted = module.input_size if layer == "weight_ih_l0" else columns.get(kind)
        if wanted is not None and parameter.shape[1] != wanted:
            return False
    return True


def _held(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _held(item)
