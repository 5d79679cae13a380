"""Norms of gradients, weights and updates per layer, read in the optimiser's step hooks."""

import torch

from tamiyo.host.layers import Layers
from tamiyo.host.statistics import layer_norms

__all__ = ["UpdateMeter"]

SAMPLED = 1024
"""Scalars per tensor from which the update ratio is estimated."""


class UpdateMeter:
    """Measures one optimiser step. Of every tensor an evenly strided sample is compared.

    A full copy of the weights or the analytic update of Adam would cost two to six times as much;
    both norms of the ratio come from the same scalars, so the sampling fraction cancels out.

    Args:
        layers: The layers.
        optimizer: Whose steps are measured.
    """

    def __init__(self, layers: Layers, optimizer: torch.optim.Optimizer) -> None:
        self._layers = layers
        self._optimizer = optimizer
        self._parameters: list[torch.Tensor] = []
        self._ids: list[int] = []
        for layer_id in range(len(layers)):
            # A norm of a parameter that is sharded over processes would wait for all of them.
            owned = [
                parameter
                for parameter in layers.parameters(layer_id)
                if parameter.is_floating_point() and not hasattr(parameter, "device_mesh")
            ]
            self._parameters += owned
            self._ids += [layer_id] * len(owned)
        self._before: list[torch.Tensor] = []

    def gradient_norms(self, scale: torch.Tensor | None = None) -> torch.Tensor:
        """L2 norms, shape [N]; NaN where there is no gradient, infinite where one is not finite.

        Args:
            scale: What the gradients are multiplied with (see `gradient_scale`). Loss scaling
                finds its scale by overflow and skips such a step, so that with it gradients that
                are not finite are no fault, and NaN.
        """
        gradients, ids = [], []
        for parameter, layer_id in zip(self._parameters, self._ids, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.detach()
                gradients.append(gradient.coalesce().values() if gradient.is_sparse else gradient)
                ids.append(layer_id)
        norms = layer_norms(gradients, ids, len(self._layers))
        if scale is None:
            return norms
        return (norms / scale.to(norms)).masked_fill(norms.isinf(), torch.nan)

    def weight_norms(self) -> torch.Tensor:
        """L2 norms, shape [N]; NaN without parameters, infinite where one is not finite."""
        return layer_norms(
            [parameter.detach() for parameter in self._parameters], self._ids, len(self._layers)
        )

    def remember(self) -> None:
        """Keep the sampled weights; call it before the step."""
        self._before = [_sampled(parameter).clone() for parameter in self._parameters]

    def update_ratios(self) -> torch.Tensor:
        """Norm of the change since `remember` over the norm before, shape [N].

        Parameters that this optimiser did not train in this step (frozen or unused ones, or those
        of another optimiser) do not count: they are not meant to move. NaN for layers without any
        other or with all sampled weights at zero, infinite where the change is not finite.
        """
        trained = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        counted = [
            (before, _sampled(parameter), layer_id)
            for before, parameter, layer_id in zip(
                self._before, self._parameters, self._ids, strict=False
            )
            if parameter.grad is not None and id(parameter) in trained
        ]
        if not counted:
            return torch.full((len(self._layers),), torch.nan, dtype=torch.float64)
        before, after, ids = map(list, zip(*counted, strict=True))
        change = layer_norms(torch._foreach_sub(after, before), ids, len(self._layers))
        weight = layer_norms(before, ids, len(self._layers))
        return torch.where(weight > 0, change / weight, torch.nan)


def _sampled(parameter: torch.Tensor) -> torch.Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)]
