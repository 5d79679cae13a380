"""How far a policy has moved from the one it started as: the anchor of refinement."""

import torch
from torch import Tensor

from tamiyo.policy.actions import ActionDistribution
from tamiyo.policy.segments import segment_sum

__all__ = ["kl_from_anchor"]


def kl_from_anchor(anchor: ActionDistribution, distribution: ActionDistribution) -> Tensor:
    """[B]: KL(anchor ‖ π) of the whole action, exact over its factors.

    This direction keeps alive what the anchor does (Rajeswaran et al., RSS 2018, and Vinyals et
    al., Nature 2019, refine imitated policies under such a penalty).

    Args:
        anchor: Of the policy that was started from; no gradient goes there.
        distribution: Of the learned policy, for the same graphs.
    """
    kind = _gap(anchor.type_log_prob, distribution.type_log_prob).sum(-1)
    reached = anchor.target_log_prob.exp()
    target = _gap(anchor.target_log_prob, distribution.target_log_prob) + reached * kind
    inputs = anchor.inputs
    where_and_what = segment_sum(target, inputs.candidate_graph, inputs.graphs)
    whether = _gap(anchor.adapt_log_prob, distribution.adapt_log_prob).sum(-1)
    return whether + anchor.adapt_log_prob[:, 1].exp() * where_and_what


def _gap(anchor: Tensor, log_prob: Tensor) -> Tensor:
    """P (log p - log π) elementwise; 0 where the anchor gives nothing."""
    possible = anchor > -torch.inf
    known = torch.where(possible, anchor, 0.0).detach()
    gap = known - torch.where(possible, log_prob, 0.0)
    return torch.where(possible, known.exp() * gap, 0.0)
