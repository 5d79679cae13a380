"""Adaptive gradient clipping: no unit's gradient is long beside its own weights."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import Action, Context, Number, ParameterRule, Standing, Undo
from tamiyo.host.layers import Layers
from tamiyo.host.training import gradient_scale

__all__ = ["ClipGradients", "clip_adaptively"]

SMALLEST_WEIGHT_NORM = 1e-3
"""Norm that a unit's weights count with at least, so that zero weights can be trained."""


class ClipGradients(Action):
    """Clips gradients before each optimiser step (AGC: Brock et al., ICML 2021, arXiv 2102.06171).

    As in the paper, the whole model means all layers but the last one.
    """

    type = AdaptationType.CLIP_GRADIENTS
    rules: ClassVar[Mapping[str, ParameterRule]] = {"ratio": Number(1e-4, 10, default=0.01)}
    whole_model = True

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether the layer owns something to train."""
        return any(parameter.requires_grad for parameter in layers.parameters(layer_id))

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        layers, ratio = context.layers, float(parameters["ratio"])
        trainable = [i for i in range(len(layers)) if self.applies_to(layers, i)]
        chosen = list(target) or trainable[:-1] or trainable

        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            owned = [p for layer_id in chosen for p in layers.parameters(layer_id)]
            clip_adaptively(owned, ratio, gradient_scale(optimizer))

        return context.install(
            (context.run.optimizer.register_step_pre_hook, clip),
            standing=Standing(self.type.value, list(target), dict(parameters)),
        )


@torch.no_grad()
def clip_adaptively(
    parameters: Sequence[torch.Tensor], ratio: float, scale: torch.Tensor | None = None
) -> None:
    """Shorten gradients to `ratio` times the norm of the weights, unit by unit, in place.

    Args:
        parameters: Tensors with gradients; a unit is a row (index of axis 0) of a matrix or
            kernel, and all of a vector.
        ratio: Largest gradient norm over weight norm (lambda in the paper).
        scale: What the gradients are multiplied with (see `gradient_scale`).
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None or gradient.is_sparse:
            continue
        axes = tuple(range(1, parameter.dim())) if parameter.dim() > 1 else None
        weight = _norm(parameter, axes).clamp_min_(SMALLEST_WEIGHT_NORM)
        limit = weight * ratio if scale is None else weight * ratio * scale.to(weight)
        length = _norm(gradient, axes).clamp_min_(1e-12)
        gradient.mul_((limit / length).clamp_max_(1.0).to(gradient.dtype))


def _norm(tensor: torch.Tensor, axes: tuple[int, ...] | None) -> torch.Tensor:
    values = tensor.detach() if tensor.is_complex() else tensor.detach().float()
    norm: torch.Tensor = torch.linalg.vector_norm(values, dim=axes, keepdim=axes is not None)
    return norm
