"""How sure the heads are of the action they would take: Monte Carlo dropout, one trunk pass."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tamiyo.policy.actions import ActionDistribution
from tamiyo.policy.heads import Heads
from tamiyo.policy.segments import segment_log_softmax

__all__ = ["action_uncertainty"]


def action_uncertainty(
    heads: Heads,
    units: Mapping[str, Tensor],
    distribution: ActionDistribution,
    masks: Mapping[str, Tensor],
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Spread of the probability of the greedy action over S thinned networks.

    Args:
        heads: The network's heads.
        units: Their hidden units (`Heads.units`).
        distribution: The distribution without dropout, which names the greedy action.
        masks: Unit masks [S, D] of the heads `adapt`, `target` and `adaptation`.
        temperature: Calibration of the adapt head.

    Returns:
        Uncertainty [B] in [0, 1]: twice the larger standard deviation (a probability's is at most
        one half) of *adapt?* and of the whole action. Mean calibrated probability [B] of *adapt?*.
    """
    inputs = distribution.inputs
    row, kind = distribution.greedy_target()
    adapt_logit = heads.head("adapt").sampled(units["adapt"], masks["adapt"])[..., 0]
    adapt = (adapt_logit / temperature).sigmoid() * distribution.can_adapt[:, None]
    scores = heads.head("target").sampled(units["target"], masks["target"])[..., 0]
    target = segment_log_softmax(
        scores,
        distribution.target_valid[:, None],
        inputs.candidate_graph,
        inputs.graphs,
    )[row].exp()
    types = heads.head("adaptation").sampled(units["adaptation"][row], masks["adaptation"])
    legal = inputs.legal[row][:, None, :]
    chosen = types.masked_fill(~legal, torch.finfo(types.dtype).min).softmax(-1)
    joint = adapt * target * chosen[torch.arange(len(row), device=row.device), :, kind]
    spread = torch.maximum(adapt.std(1, correction=0), joint.std(1, correction=0))
    return (2.0 * spread).clamp(0.0, 1.0), adapt.mean(1)
