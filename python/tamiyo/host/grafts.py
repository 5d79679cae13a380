"""Layers with something added behind them, as plain torch modules that need no Tamiyo to be loaded.

A grafted layer is a `torch.fx.GraphModule` that holds the very weight and bias of the layer, under
their old names, beside what was added. Its graph is written here by hand, so nothing is traced.
"""

import operator
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeGuard

import torch
from torch import fx, nn
from torch.nn import functional

from tamiyo.host.layers import Layers

__all__ = ["Form", "bare", "gated", "graft_form", "graftable", "is_graft", "is_seeded", "seeded"]

_CALLS: Mapping[type[nn.Module], Callable[..., torch.Tensor]] = {
    nn.Linear: functional.linear,
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
"""Exact types that can be grafted, and what they compute."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Form(Enum):
    """How the output s of a seed joins the output h of its layer."""

    ISOLATED = "isolated"
    """h + (s - s.detach()) with s computed from h.detach(): the output and every other gradient
    are exactly those of h alone, and the seed gets the gradient that a part of the output gets."""
    BLENDED = "blended"
    """h + alpha * s"""
    MERGED = "merged"
    """h + s"""


def graftable(layers: Layers, layer_id: int) -> bool:
    """Whether something can be put behind a layer.

    It must be a plain linear or convolutional layer that is called once a step, is trained and has
    no hooks. Torch's own composite modules are left alone, since they read the weights of their
    parts on faster paths of their own.
    """
    name, module = layers.names[layer_id], layers.module(layer_id)
    if layers.flow is None or layers.flow.layers.get(name) != 1 or module is layers.model:
        return False
    if type(module) not in _CALLS or getattr(module, "padding_mode", "zeros") != "zeros":
        return False
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return False
    weight = module._parameters.get("weight")
    parents = [p for p in layers.model.modules() if module in p._modules.values()]
    own = (type(p) in _CONTAINERS or not type(p).__module__.startswith("torch.") for p in parents)
    return weight is not None and weight.requires_grad and all(own)


def gated(module: nn.Module, normalization: nn.Module, gate: nn.Parameter) -> fx.GraphModule:
    """The layer with a gated normalisation behind it: `h + gate * (normalization(h) - h)`.

    With a gate of zero outputs and gradients are exactly those of the layer.

    Args:
        module: A graftable layer, whose parameters are shared.
        normalization: Keeps the shape of the layer's output.
        gate: Shape [1].
    """
    root, graph, output = _open(module)
    # As a part of the normalisation it is named like one, and programs that spare those from
    # weight decay by their name spare it too.
    normalization.register_parameter("gate", gate)
    root.register_module("norm", normalization)
    normalized = graph.call_module("norm", (output,))
    difference = graph.call_function(operator.sub, (normalized, output))
    change = graph.call_function(operator.mul, (graph.get_attr("norm.gate"), difference))
    return _close(module, root, graph, output, change)


def seeded(
    module: nn.Module, seed: nn.Module, form: Form, alpha: torch.Tensor | None = None
) -> fx.GraphModule:
    """The layer with a seed behind it, joined as `form` says.

    Args:
        module: A graftable layer, whose parameters are shared.
        seed: Maps the layer's output to a tensor of the same shape.
        form: How the two are joined.
        alpha: Share of the seed where it is blended, a scalar, held as a buffer.
    """
    root, graph, output = _open(module)
    root.register_module("seed", seed)
    isolated = form is Form.ISOLATED
    source = graph.call_method("detach", (output,)) if isolated else output
    change = graph.call_module("seed", (source,))
    if isolated:
        change = graph.call_function(operator.sub, (change, graph.call_method("detach", (change,))))
    elif form is Form.BLENDED:
        root.register_buffer("alpha", alpha)
        change = graph.call_function(operator.mul, (graph.get_attr("alpha"), change))
    return _close(module, root, graph, output, change)


def is_seeded(module: nn.Module) -> bool:
    """Whether a layer has a seed behind it."""
    return isinstance(module, fx.GraphModule) and "seed" in module._modules


def is_graft(module: nn.Module) -> TypeGuard[fx.GraphModule]:
    """Whether it is a layer with something behind it that was put there by `gated` or `seeded`."""
    if not isinstance(module, fx.GraphModule):
        return False
    norm = module._modules.get("norm")
    return "seed" in module._modules or (norm is not None and "gate" in norm._parameters)


def graft_form(graft: fx.GraphModule) -> Form | None:
    """How the seed of a grafted layer joins its output; `None` for a gated normalisation."""
    if not is_seeded(graft):
        return None
    if "alpha" in graft._buffers:
        return Form.BLENDED
    detached = any(node.target == "detach" for node in graft.graph.nodes)
    return Form.ISOLATED if detached else Form.MERGED


def bare(graft: fx.GraphModule) -> nn.Module:
    """The layer that a graft was made of, as a new object with the very same parameters."""
    (call,) = (node for node in graft.graph.nodes if node.target in _CALLS.values())
    kind: Any = next(kind for kind, function in _CALLS.items() if function is call.target)
    weight, bias = graft.get_parameter("weight"), graft._parameters.get("bias")
    options: dict[str, Any] = {"bias": bias is not None, "device": "meta"}
    if kind is nn.Linear:
        layer = kind(weight.shape[1], weight.shape[0], **options)
    else:
        stride, padding, dilation, groups = call.args[3:]
        shape = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
        layer = kind(*shape, stride, padding, dilation, groups, **options)
    layer._parameters.update(weight=weight, bias=bias)
    layer.train(graft.training)
    return layer


def _open(module: nn.Module) -> tuple[nn.Module, fx.Graph, fx.Node]:
    """A root with the layer's parameters, a graph that computes its output, and that output."""
    root, graph = nn.Module(), fx.Graph()
    for name, parameter in module._parameters.items():
        root.register_parameter(name, parameter)
    inputs = graph.placeholder("input")
    weight = graph.get_attr("weight")
    bias = graph.get_attr("bias") if module._parameters["bias"] is not None else None
    geometry: tuple[Any, ...] = ()
    if not isinstance(module, nn.Linear):
        geometry = (module.stride, module.padding, module.dilation, module.groups)
    output = graph.call_function(_CALLS[type(module)], (inputs, weight, bias, *geometry))
    return root, graph, output


def _close(
    module: nn.Module, root: nn.Module, graph: fx.Graph, output: fx.Node, change: fx.Node
) -> fx.GraphModule:
    """The module that returns `output + change`, and looks like the layer from outside."""
    # Under autocast a change may be in single precision where the layer's output is not.
    change = graph.call_method("type_as", (change, output))
    graph.output(graph.call_function(operator.add, (output, change)))
    graft = fx.GraphModule(root, graph, class_name=type(module).__name__)
    for name in getattr(module, "__constants__", ()):
        setattr(graft, name, getattr(module, name))
    return graft.train(module.training)
