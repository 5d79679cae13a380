"""Modules as plain data: whatever Tamiyo puts into a model can be described and built again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from tamiyo.host.grafts import Form, bare, gated, graft_form, is_graft, seeded
from tamiyo.host.modules import ACTIVATIONS

__all__ = ["Blueprint", "blueprint", "build", "graft_onto"]

Blueprint: TypeAlias = dict[str, Any]
"""Dictionaries, lists, strings and numbers only."""

_CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    "padding_mode",
)
_OPTIONS: Mapping[type[nn.Module], Sequence[str]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.Conv3d: _CONVOLUTION,
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
}
"""Exact types and the attributes that are arguments of their constructors."""
_TYPES: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (*_OPTIONS, *ACTIVATIONS, nn.Sequential)
}


def blueprint(module: nn.Module) -> Blueprint:
    """What is needed to build a module of the same shape; its values are not part of it.

    Raises:
        ValueError: it, or something inside it, is not among what Tamiyo puts into models.
    """
    if is_graft(module):
        form = graft_form(module)
        inside = module.get_submodule("norm" if form is None else "seed")
        return {
            "type": "graft",
            "onto": blueprint(bare(module)),
            "form": None if form is None else form.value,
            "inside": blueprint(inside),
        }
    kind = type(module)
    if kind is nn.Sequential:
        children = {name: blueprint(child) for name, child in module.named_children()}
        return {"type": "Sequential", "inside": children}
    if kind in _OPTIONS:
        options = {name: _plain(getattr(module, name)) for name in _OPTIONS[kind]}
        if kind not in (nn.LayerNorm, nn.GroupNorm):
            options["bias"] = module._parameters.get("bias") is not None
        return {"type": kind.__name__, "options": options}
    if kind in ACTIVATIONS and module.extra_repr() == kind().extra_repr():
        return {"type": kind.__name__, "options": {}}
    raise ValueError(f"a {kind.__name__} cannot be described")


def build(plan: Blueprint, like: torch.Tensor) -> nn.Module:
    """The module that a blueprint describes, with arbitrary values.

    Args:
        plan: Of `blueprint`.
        like: Tensor whose dtype and device its parameters get.

    Raises:
        ValueError: nothing of that type can be built.
    """
    # Drawing initial values must not move the run's own generator.
    with torch.random.fork_rng(devices=[]):
        return _built(plan).to(like)


def graft_onto(layer: nn.Module, plan: Blueprint) -> nn.Module:
    """The layer with what a blueprint of type `graft` describes behind it.

    Args:
        layer: A plain linear or convolutional layer, whose parameters are shared.
        plan: Of `blueprint`.
    """
    like = layer.get_parameter("weight")
    inside = build(plan["inside"], like)
    if plan["form"] is None:
        return gated(layer, inside, nn.Parameter(torch.zeros(1).to(like)))
    form = Form(plan["form"])
    alpha = torch.zeros((), dtype=like.dtype, device=like.device)
    return seeded(layer, inside, form, alpha)


def _built(plan: Blueprint) -> nn.Module:
    if plan["type"] == "graft":
        return graft_onto(_built(plan["onto"]), plan)
    kind: Callable[..., nn.Module] | None = _TYPES.get(plan["type"])
    if kind is None:
        raise ValueError(f"a {plan['type']} cannot be built")
    if kind is nn.Sequential:
        module = nn.Sequential()
        for name, child in plan["inside"].items():
            module.add_module(name, _built(child))
        return module
    options = {name: _tuple(value) for name, value in plan["options"].items()}
    return kind(**options)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
