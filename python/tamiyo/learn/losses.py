"""The losses: small functions of tensors, each a weighted mean over transitions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.graphs import GraphBatch
from tamiyo.learn.segments import TARGETS
from tamiyo.policy.actions import Action

__all__ = ["Losses", "Minibatch", "losses", "policy_loss", "weighted_mean"]


@dataclass(frozen=True, eq=False, slots=True)
class Minibatch:
    """M transitions and what they are trained towards; every tensor [M] unless it says more."""

    graphs: GraphBatch
    action: Action
    prox_log_prob: Tensor
    """log π_prox(a|s)."""
    rho: Tensor
    """min(ρ̄, π_prox/μ)."""
    advantages: Tensor
    returns: Tensor
    weights: Tensor
    """Corrections w of prioritised sampling; 1 for fresh data."""
    on_policy: Tensor
    """Bool: counts for the policy loss."""
    targets: Tensor
    """[M, 6], what the other heads should have said, NaN where unknown: `segments.TARGETS`."""

    def __len__(self) -> int:
        return len(self.advantages)

    def target(self, name: str) -> Tensor:
        """[M]: one of the targets."""
        return self.targets[:, TARGETS.index(name)]


@dataclass(frozen=True, eq=False, slots=True)
class Losses:
    """One scalar to minimise, and everything worth reporting, without gradients."""

    total: Tensor
    parts: Mapping[str, Tensor]
    """Scalars; NaN where nothing in the minibatch says anything about it."""


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Σ w v / Σ w, or 0 where all weights are 0."""
    return (weights * values).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def policy_loss(
    log_prob: Tensor,
    prox_log_prob: Tensor,
    rho: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip_ratio: float,
) -> Tensor:
    """Decoupled PPO (Hilton et al. 2022, arXiv:2110.00641).

        -Σ w ρ min(q A, clip(q, 1 ± ε) A) / Σ w,   q = π_θ / π_prox

    Args:
        log_prob: [M], log π_θ(a|s), the only argument that passes a gradient.
        prox_log_prob: [M], log π_prox(a|s).
        rho: [M], capped π_prox/μ.
        advantages: [M].
        weights: [M]; 0 drops a transition.
        clip_ratio: ε.
    """
    ratio = (log_prob - prox_log_prob).exp()
    clipped = ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio)
    gain = torch.minimum(ratio * advantages, clipped * advantages)
    return -weighted_mean(rho * gain, weights)


def losses(
    outputs: Mapping[str, Any],
    batch: Minibatch,
    config: ProductionTrainingConfig,
    exploration: float = 0.0,
) -> Losses:
    """All losses of a minibatch. A coefficient of 0 switches a loss off.

    Args:
        outputs: Of the network for `batch.graphs`, with `uncertainty` where that loss is on.
        batch: The transitions.
        config: The coefficients.
        exploration: ε of the mixture that the actions were drawn from.
    """
    distribution = outputs["distribution"]
    log_prob = distribution.log_prob(batch.action, exploration)
    policy_weights = batch.weights * batch.on_policy
    policy = policy_loss(
        log_prob,
        batch.prox_log_prob,
        batch.rho,
        batch.advantages,
        policy_weights,
        config.clip_ratio,
    )
    error = functional.huber_loss(
        outputs["value_estimate"], batch.returns, reduction="none", delta=config.value_huber_delta
    )
    value = weighted_mean(error, batch.weights)
    entropies = {
        name: weighted_mean(entropy, policy_weights)
        for name, entropy in distribution.entropy().items()
    }
    entropy = torch.stack(list(entropies.values())).sum()
    others, coefficients = _other_heads(outputs, batch, config), _coefficients(config)
    total = policy + config.value_loss_coeff * value - config.entropy_bonus_coeff * entropy
    for name, loss in others.items():
        total = total + coefficients[name] * loss
    parts = {"policy": policy, "value": value, "entropy": entropy, "total": total}
    parts |= {f"entropy_{name}": part for name, part in entropies.items()}
    parts |= {name: others.get(name, torch.full_like(total, torch.nan)) for name in OTHER_LOSSES}
    parts |= _diagnostics(log_prob, batch, policy_weights, config.clip_ratio)
    return Losses(total, {name: part.detach() for name, part in parts.items()})


OTHER_LOSSES = ("safety", "uncertainty", "temporal", "urgency")


def _other_heads(
    outputs: Mapping[str, Any], batch: Minibatch, config: ProductionTrainingConfig
) -> dict[str, Tensor]:
    """The losses that are switched on and for which the minibatch has targets."""
    temporal = outputs["temporal_analysis"]
    safety = outputs["safety_score"]
    # An unsafe outcome that was called safe costs more than the other way round.
    caution = torch.where(batch.target("safety") < 0.5, config.safety_penalty_weight, 1.0)
    entropy = functional.binary_cross_entropy
    found = {
        "safety": [
            _known_mean(entropy, safety, "safety", batch, caution),
            _known_mean(entropy, outputs["risk_assessment"], "risk", batch),
        ],
        "urgency": [_known_mean(entropy, outputs["urgency_score"], "urgency", batch)],
        "temporal": [
            _known_mean(functional.mse_loss, temporal[name], name, batch) for name in temporal
        ],
        "uncertainty": [_excess_uncertainty(outputs, batch, config.epistemic_threshold)],
    }
    coefficients = _coefficients(config)
    return {
        name: torch.stack(known).sum()
        for name, parts in found.items()
        if coefficients[name] > 0 and (known := [part for part in parts if part is not None])
    }


def _coefficients(config: ProductionTrainingConfig) -> dict[str, float]:
    return {
        "safety": config.safety_loss_weight,
        "uncertainty": config.uncertainty_regularization,
        "temporal": config.temporal_loss_coeff,
        "urgency": config.urgency_loss_coeff,
    }


def _known_mean(
    loss: Callable[..., Tensor],
    predicted: Tensor,
    name: str,
    batch: Minibatch,
    factor: Tensor | None = None,
) -> Tensor | None:
    """Weighted mean of a loss over the transitions whose target is known."""
    target = batch.target(name)
    known = ~target.isnan()
    if not bool(known.any()):
        return None
    weights = batch.weights[known] if factor is None else (batch.weights * factor)[known]
    return weighted_mean(loss(predicted[known], target[known], reduction="none"), weights)


def _excess_uncertainty(
    outputs: Mapping[str, Any], batch: Minibatch, threshold: float
) -> Tensor | None:
    """How far the spread of the thinned networks exceeds a threshold on states learned from.

    Only states whose outcome is not known to be bad: there the network has reason to be sure.
    """
    if "uncertainty" not in outputs:
        return None
    excess = (outputs["uncertainty"] - threshold).clamp_min(0.0)
    return weighted_mean(excess, batch.weights * ~(batch.target("safety") < 0.5))


@torch.no_grad()
def _diagnostics(
    log_prob: Tensor, batch: Minibatch, weights: Tensor, clip_ratio: float
) -> dict[str, Tensor]:
    """How far the policy moved from the proximal one."""
    shift = log_prob - batch.prox_log_prob
    ratio = shift.exp()
    # Schulman's low-variance estimate of KL(π_prox | π_θ), never negative.
    return {
        "kl": weighted_mean(ratio - 1.0 - shift, weights),
        "clip_fraction": weighted_mean(((ratio - 1.0).abs() > clip_ratio).float(), weights),
    }
