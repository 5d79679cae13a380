"""When the effect of a decision showed: bands of horizons whose sum is exactly what is shared out.

Two questions, two functions. `horizon_effects` asks what happened *after* a moment, whoever caused
it: the bands of each moment sum to its return to go. `attribute` shares an episode's return out
among its decisions, each reward once: the credits of all decisions and the rewards before the first
one sum to the return. The rule, the latest adaptation gets the reward, is a convention of
bookkeeping and no claim of causation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo.learn.rewards.config import BANDS
from tamiyo.learn.rewards.measurements import Array

__all__ = ["Attribution", "attribute", "horizon_effects"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Shares of the return of H episodes of T intervals."""

    credit: Array
    """[T, H, 4]: what the decision before interval t is credited with, by band; 0 where none."""
    unattributed: Array
    """[H]: rewards before the first adaptation."""

    @property
    def total(self) -> Array:
        """[H]: the episodes' returns."""
        return np.asarray(self.credit.sum((0, 2)) + self.unattributed)


def horizon_effects(objective: npt.ArrayLike, horizons: Sequence[int]) -> Array:
    """Change of the objective after each moment, by horizon.

    Args:
        objective: [T+1, H], J at the episode's start and after each of its T intervals.
        horizons: Intervals at which the immediate, short and medium bands end, increasing.

    Returns:
        [T, H, 4]: `J(t+h) - J(t+h')` for consecutive horizons `h' < h`, cut off at the episode's
        end. The four bands of a moment sum to `J(T) - J(t)`.
    """
    levels = np.asarray(objective, dtype=np.float64)
    length = len(levels) - 1
    moments = np.arange(length)[:, None]
    edges = np.minimum(moments + np.array([0, *horizons, length]), length)
    return np.asarray(np.diff(levels[edges], axis=1).swapaxes(1, 2))


def attribute(rewards: npt.ArrayLike, acted: npt.ArrayLike, horizons: Sequence[int]) -> Attribution:
    """Share each reward out to the latest adaptation before it.

    Args:
        rewards: [T, H], the reward of each interval.
        acted: [T, H] bool, whether an adaptation was applied right before the interval.
        horizons: As for `horizon_effects`, in intervals since the adaptation.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    acted = np.asarray(acted, dtype=np.bool_)
    if rewards.shape != acted.shape or rewards.ndim != 2:
        raise ValueError(f"rewards {rewards.shape} and acted {acted.shape} must both be [T, H]")
    moments = np.arange(len(rewards))[:, None]
    latest = np.maximum.accumulate(np.where(acted, moments, -1), axis=0)
    band = np.searchsorted(np.asarray(horizons), moments - latest, side="right")
    owned = latest >= 0
    run = np.broadcast_to(np.arange(rewards.shape[1]), rewards.shape)
    credit = np.zeros((*rewards.shape, len(BANDS)))
    np.add.at(credit, (latest[owned], run[owned], band[owned]), rewards[owned])
    return Attribution(credit, np.where(owned, 0.0, rewards).sum(0))
