"""Losses of the heads that foresee (value, safety, risk, urgency, trends), where known."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.segments import TARGETS

__all__ = ["HEAD_LOSSES", "head_losses", "value_loss", "weighted_mean"]

HEAD_LOSSES = ("safety", "uncertainty", "temporal", "urgency")


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Σ w v / Σ w, or 0 where all weights are 0."""
    return (weights * values).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def value_loss(
    estimate: Tensor, returns: Tensor, weights: Tensor, config: ProductionTrainingConfig
) -> Tensor:
    """Weighted mean of the Huber loss; 0 where no return is known.

    Args:
        estimate: [M].
        returns: [M], NaN where unknown.
        weights: [M].
        config: The width of its quadratic part.
    """
    known = ~returns.isnan()
    error = functional.huber_loss(
        estimate, returns.nan_to_num(), reduction="none", delta=config.value_huber_delta
    )
    return weighted_mean(error, weights * known)


def head_losses(
    outputs: Mapping[str, Any], targets: Tensor, weights: Tensor, config: ProductionTrainingConfig
) -> dict[str, tuple[float, Tensor]]:
    """Coefficient and loss by name (`HEAD_LOSSES`), where switched on and anything is known.

    Args:
        outputs: Of the network for M graphs, with `uncertainty` where that loss is on.
        targets: [M, 6], `segments.TARGETS`, NaN where unknown.
        weights: [M].
        config: The coefficients.
    """
    temporal = outputs["temporal_analysis"]
    known = {name: targets[:, index] for index, name in enumerate(TARGETS)}
    # An unsafe outcome that was called safe costs more than the other way round.
    caution = torch.where(known["safety"] < 0.5, config.safety_penalty_weight, 1.0)
    entropy = functional.binary_cross_entropy
    found = {
        "safety": [
            _known_mean(entropy, outputs["safety_score"], known["safety"], weights * caution),
            _known_mean(entropy, outputs["risk_assessment"], known["risk"], weights),
        ],
        "urgency": [_known_mean(entropy, outputs["urgency_score"], known["urgency"], weights)],
        "temporal": [
            _known_mean(functional.mse_loss, temporal[name], known[name], weights)
            for name in temporal
        ],
        "uncertainty": [
            _excess_uncertainty(outputs, known["safety"], weights, config.epistemic_threshold)
        ],
    }
    coefficients = {
        "safety": config.safety_loss_weight,
        "uncertainty": config.uncertainty_regularization,
        "temporal": config.temporal_loss_coeff,
        "urgency": config.urgency_loss_coeff,
    }
    return {
        name: (coefficients[name], torch.stack(losses).sum())
        for name, parts in found.items()
        if coefficients[name] > 0 and (losses := [part for part in parts if part is not None])
    }


def _known_mean(
    loss: Callable[..., Tensor], predicted: Tensor, target: Tensor, weights: Tensor
) -> Tensor | None:
    """Weighted mean of a loss over the graphs whose target is known."""
    known = ~target.isnan()
    if not bool(known.any()):
        return None
    return weighted_mean(loss(predicted[known], target[known], reduction="none"), weights[known])


def _excess_uncertainty(
    outputs: Mapping[str, Any], safety: Tensor, weights: Tensor, threshold: float
) -> Tensor | None:
    """How far the spread of the thinned networks exceeds a threshold on states learned from.

    Only states whose outcome is not known to be bad: there the network has reason to be sure.
    """
    if "uncertainty" not in outputs:
        return None
    excess = (outputs["uncertainty"] - threshold).clamp_min(0.0)
    return weighted_mean(excess, weights * ~(safety < 0.5))
