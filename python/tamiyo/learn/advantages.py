"""Advantages and value targets: V-trace(λ), of which GAE is the case of on-policy data."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Targets", "gae", "vtrace"]


class Targets(NamedTuple):
    """What the policy and the value function are trained towards; both [T, B]."""

    advantages: Tensor
    returns: Tensor


def vtrace(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    done: Tensor,
    log_ratio: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> Targets:
    """V-trace (Espeholt et al. 2018, arXiv:1802.01561) with λ, for B rows of T steps.

        d_t = r_t + γ (1 - terminated_t) V(s'_t) - V(s_t)
        A_t = d_t + γλ (1 - done_t) G_{t+1}
        G_t = min(ρ̄, ρ_t) d_t + min(c̄, ρ_t) γλ (1 - done_t) G_{t+1};   v_t = V(s_t) + G_t

    The advantage carries no weight for its own step: the policy loss applies that one. Nothing
    passes a gradient. The result has the dtype of `values`; give float64 where T is long.

    Args:
        rewards: [T, B].
        values: [T, B], V of the observation that each action was taken on.
        next_values: [T, B], V of the observation that followed it; at a truncation that is the
            episode's last observation, not the first of the next one.
        terminated: [T, B], bool: the episode ended here, nothing is worth anything after it.
        done: [T, B], bool: terminated or truncated, or the row's next step does not follow.
        log_ratio: [T, B], log π(a|s) - log μ(a|s) of the evaluated and the behaviour policy.
        gamma: Discount γ.
        lam: λ of the mixture of horizons.
        rho_bar: Cap ρ̄ of a step's own weight; infinite for none.
        c_bar: Cap c̄ of a trace's weight; infinite for none.

    Returns:
        Advantages A and value targets v.
    """
    dtype = values.dtype
    # A float times a bool tensor is float32 whatever the rest is.
    alive = (~terminated).to(dtype)
    follows = (~done).to(dtype)
    rho = log_ratio.to(dtype).clamp(max=_log(rho_bar)).exp()
    trace = log_ratio.to(dtype).clamp(max=_log(c_bar)).exp()
    deltas = rewards.to(dtype) + gamma * next_values.to(dtype) * alive - values
    advantages, corrections = torch.empty_like(values), torch.empty_like(values)
    later = torch.zeros_like(values[0])
    for step in range(len(values) - 1, -1, -1):
        later = gamma * lam * follows[step] * later
        advantages[step] = deltas[step] + later
        later = rho[step] * deltas[step] + trace[step] * later
        corrections[step] = later
    return Targets(advantages.detach(), (values + corrections).detach())


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    done: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Targets:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).

    V-trace where both policies are the same; see `vtrace` for the arguments.
    """
    same = torch.zeros_like(values)
    return vtrace(rewards, values, next_values, terminated, done, same, gamma=gamma, lam=lam)


def _log(cap: float) -> float:
    return math.log(cap) if cap < math.inf else math.inf
