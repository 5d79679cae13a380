"""What must never happen, as a mask: no gain elsewhere can pay for it."""

import numpy as np

from tamiyo.contracts import AdaptationType
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.rewards.config import RewardConfig
from tamiyo.learn.rewards.measurements import Array, Mask

__all__ = ["GROWING", "allowed_actions", "only_restore"]

GROWING = frozenset(
    {AdaptationType.ADD_SEED, AdaptationType.WIDEN, AdaptationType.INSERT_NORMALIZATION}
)
"""Adaptations that cost compute and memory."""

_GROWS = np.array([action in GROWING for action in ACTIONS])
_RESTORES = np.array([action is AdaptationType.RESTORE for action in ACTIONS])


def only_restore(restricted: Mask) -> Mask:
    """[H, types]: everything for runs that are not restricted [H], `restore` alone for the rest."""
    return np.asarray(~np.asarray(restricted)[:, None] | _RESTORES)


def allowed_actions(
    config: RewardConfig, *, compute: Array, memory: Array, rollbacks: Array, over: Mask
) -> Mask:
    """Actions that the limits leave open.

    Args:
        config: Has the limits.
        compute: [H], the present compute over that of the run left alone.
        memory: [H], the same for memory.
        rollbacks: [H], adaptations taken back in the episode so far.
        over: [H], whether the episode is over.

    Returns:
        [H, types], columns as in `ACTIONS`. Nothing may grow beyond the compute or memory limit.
        When the rollback limit is reached only `restore` is left, after the episode nothing.
    """
    full = (compute >= config.compute_limit) | (memory >= config.memory_limit)
    # The sum of shares of the limit may round to just below a whole count.
    restricted = rollbacks > config.rollback_limit - 0.5
    mask = only_restore(restricted) & ~(full[:, None] & _GROWS) & ~over[:, None]
    return np.asarray(mask, dtype=np.bool_)
