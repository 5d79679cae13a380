"""What is done to a live run, where, when, and what mends it.

To add a fault, write what it does as a `Strike` and add a line to `FAULTS`. Strengths and hosts are
those of `tamiyo.envs.training.faults`, where the cures were measured to pay; cures are its cures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tamiyo.bench.transfer.hosts import ACTIVATIONS, DATA, DEEPEST, LiveHost
from tamiyo.contracts import AdaptationType
from tamiyo.envs import Fault, dead_layer, learning_rate_raised
from tamiyo.envs.training.faults import CURES, WHOLE_RUN, FaultKind

__all__ = ["FAULTS", "HEALTHY", "LiveFault", "fault_named", "linear_layers"]

HEALTHY = "healthy"
"""Stands for no fault."""
HARD = ("digits", "spirals")
"""Data that a network with one bad layer does not learn all the same."""


@dataclass(frozen=True, slots=True)
class LiveFault:
    """One kind of fault.

    Attributes:
        name: Name for tables.
        kind: The same fault in Training-v0; says what mends it.
        places: Linear layers of a host, counted from 0, where it can strike and hurts, or
            `WHOLE_RUN`; none if the host shrugs it off.
        make: The fault of a host, after a number of steps, at a place.
        at_birth: Whether it is there from the beginning, and otherwise strikes in mid-run.
    """

    name: str
    kind: FaultKind
    places: Callable[[LiveHost], Sequence[int]]
    make: Callable[[LiveHost, int, int], Fault]
    at_birth: bool = False

    @property
    def cures(self) -> Sequence[AdaptationType]:
        """What mends it; best first. `restore` is for the whole run, others for its place."""
        return CURES[self.kind]


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers, in the order in which places are counted."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def fault_named(name: str) -> LiveFault:
    """The fault of that name.

    Raises:
        ValueError: there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    names = ", ".join(fault.name for fault in FAULTS)
    raise ValueError(f"unknown fault {name!r}; there are {names}")


def _anywhere(_host: LiveHost) -> Sequence[int]:
    return (WHOLE_RUN,)


def _restless(host: LiveHost) -> Sequence[int]:
    # Bounded activations, normalised layers and Adam live with higher learning rates.
    suffers = host.activation != "tanh" and not host.norm and host.optimizer_name == "sgd"
    return (WHOLE_RUN,) if suffers else ()


def _linear(host: LiveHost) -> Sequence[int]:
    return range(host.depth + 1) if host.family == "mlp" else (0,)


def _hidden(
    *activations: str, data: Sequence[str] = DATA, depths: Sequence[int] = range(1, DEEPEST + 1)
) -> Callable[[LiveHost], Sequence[int]]:
    """Hidden layers of perceptrons with these activations; a normalisation would mend them."""

    def places(host: LiveHost) -> Sequence[int]:
        fits = host.family == "mlp" and host.activation in activations and not host.norm
        return range(host.depth) if fits and host.data in data and host.depth in depths else ()

    return places


def _rate_raised(_host: LiveHost, step: int, _layer: int) -> Fault:
    return learning_rate_raised(step, factor=30.0)


def _rate_lowered(_host: LiveHost, step: int, _layer: int) -> Fault:
    return learning_rate_raised(step, factor=1e-3)


def _closed_units(_host: LiveHost, step: int, layer: int) -> Fault:
    return dead_layer(step, layer=layer)


def _on_layer(name: str, change: Callable[[nn.Linear], None]) -> Callable[..., Fault]:
    """A fault that changes one layer's parameters."""

    def make(_host: LiveHost, step: int, layer: int) -> Fault:
        def strike(model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
            with torch.no_grad():
                change(model.get_submodule(linear_layers(model)[layer]))  # type: ignore[arg-type]

        return Fault(name, step, strike)

    return make


def _zero(layer: nn.Linear) -> None:
    layer.weight.zero_()
    layer.bias.zero_()


def _saturate(layer: nn.Linear) -> None:
    layer.weight.mul_(80.0)


def _spoil(layer: nn.Linear) -> None:
    layer.weight[0, 0] = torch.nan


def _bottleneck(_host: LiveHost, step: int, layer: int) -> Fault:
    def strike(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Before the first step, so that the optimiser has no state yet to be moved."""
        names = linear_layers(model)
        narrow, after = (model.get_submodule(name) for name in names[layer : layer + 2])
        setattr(model, names[layer], nn.Linear(narrow.in_features, 1))  # type: ignore[arg-type]
        setattr(model, names[layer + 1], nn.Linear(1, after.out_features))  # type: ignore[arg-type]
        optimizer.param_groups[0]["params"] = list(model.parameters())

    return Fault("one-unit bottleneck", step, strike)


FAULTS: Sequence[LiveFault] = (
    LiveFault("learning rate too high", FaultKind.RATE_HIGH, _restless, _rate_raised),
    LiveFault("learning rate too low", FaultKind.RATE_LOW, _anywhere, _rate_lowered, at_birth=True),
    LiveFault("dying ReLU", FaultKind.DYING_RELU, _hidden("relu"), _closed_units),
    LiveFault(
        "zero layer",
        FaultKind.ZERO_LAYER,
        _hidden("relu"),
        _on_layer("zero layer", _zero),
        at_birth=True,
    ),
    LiveFault(
        "saturated layer",
        FaultKind.SATURATED,
        # Deeper networks learn around it.
        _hidden("tanh", data=(*HARD, "moons"), depths=(1, 2)),
        _on_layer("saturated layer", _saturate),
        at_birth=True,
    ),
    LiveFault("NaN weight", FaultKind.NOT_A_NUMBER, _linear, _on_layer("NaN weight", _spoil)),
    LiveFault(
        "bottleneck",
        FaultKind.BOTTLENECK,
        # What a layer is widened to is the usual width of the others, so there must be some.
        _hidden(*ACTIVATIONS, data=HARD, depths=range(3, DEEPEST + 1)),
        _bottleneck,
        at_birth=True,
    ),
)
