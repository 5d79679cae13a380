"""The losses: small functions of tensors, each a weighted mean over transitions."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from tamiyo.learn.anchor import kl_from_anchor
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.graphs import GraphBatch
from tamiyo.learn.head_losses import HEAD_LOSSES, head_losses, value_loss, weighted_mean
from tamiyo.policy.actions import Action, ActionDistribution

__all__ = ["Losses", "Minibatch", "losses", "policy_loss"]


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

    def to(self, device: torch.device) -> "Minibatch":
        """The same transitions on another device."""
        return Minibatch(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True, eq=False, slots=True)
class Losses:
    """One scalar to minimise, and everything worth reporting, without gradients."""

    total: Tensor
    parts: Mapping[str, Tensor]
    """Scalars; NaN where nothing in the minibatch says anything about it."""


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
    anchor: ActionDistribution | None = None,
) -> Losses:
    """All losses of a minibatch. A coefficient of 0 switches a loss off.

    Args:
        outputs: Of the network for `batch.graphs`, with `uncertainty` where that loss is on.
        batch: The transitions.
        config: The coefficients.
        exploration: ε of the mixture that the actions were drawn from.
        anchor: What the policy that the training started with says of the same graphs.
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
    value = value_loss(outputs["value_estimate"], batch.returns, batch.weights, config)
    entropies = {
        name: weighted_mean(entropy, policy_weights)
        for name, entropy in distribution.entropy().items()
    }
    entropy = torch.stack(list(entropies.values())).sum()
    others = head_losses(outputs, batch.targets, batch.weights, config)
    total = policy + config.value_loss_coeff * value - config.entropy_bonus_coeff * entropy
    for coefficient, loss in others.values():
        total = total + coefficient * loss
    if anchor is not None:
        drift = weighted_mean(kl_from_anchor(anchor, distribution), batch.weights)
        total = total + config.anchor_coeff * drift
    parts = {"policy": policy, "value": value, "entropy": entropy, "total": total}
    parts |= {f"entropy_{name}": part for name, part in entropies.items()}
    nothing = (0.0, torch.full_like(total, torch.nan))
    parts |= {name: others.get(name, nothing)[1] for name in HEAD_LOSSES}
    if anchor is not None:
        parts["anchor_kl"] = drift
    parts |= _diagnostics(log_prob, batch, policy_weights, config.clip_ratio)
    return Losses(total, {name: part.detach() for name, part in parts.items()})


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
