"""A tiny synthetic process whose best policy is known: the first thing a learner has to solve.

A run of H moments over a chain of layers. While it is well it gains 1/H a moment. At the end of a
moment in which it is well, one of three faults strikes with a fixed probability and stays until it
is cured; while it is there nothing is gained:

| fault | where it shows | what cures it | price |
|---|---|---|---|
| dormant | dead units of the layer itself | `reinitialize` that layer | 0.25 |
| exploding | gradient of the layer *after* it | `clip_gradients` of that layer | 0.25 |
| rate | the model's learning rate | `scale_learning_rate` of the model | 1.5 |

Prices are in moments of gain. `restore` cures everything for 3 moments; everything else costs 0.25
and does nothing. So the right answers are: look, act only when something is wrong, find the cause
beside its symptom, and no longer cure a learning rate in the last moment.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import AdaptationType
from tamiyo.graph.schema import ACTIONS

__all__ = [
    "CURES",
    "DORMANT",
    "EXPLODING",
    "FAULTS",
    "NONE",
    "RATE",
    "RESTORE",
    "Rules",
    "optimal_actions",
    "optimal_return",
    "optimal_values",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NONE, DORMANT, EXPLODING, RATE = range(4)
FAULTS = (DORMANT, EXPLODING, RATE)
CURES = {
    DORMANT: ACTIONS.index(AdaptationType.REINITIALIZE),
    EXPLODING: ACTIONS.index(AdaptationType.CLIP_GRADIENTS),
    RATE: ACTIONS.index(AdaptationType.SCALE_LEARNING_RATE),
}
RESTORE = ACTIONS.index(AdaptationType.RESTORE)
_CURE_OF = np.array([-1, *CURES.values()])


@dataclass(frozen=True, slots=True)
class Rules:
    """The process in numbers.

    Attributes:
        horizon: Moments H of an episode.
        strike: Probability of a fault after a moment in which the run was well, and at the start.
        price: Of any action but the two below, in moments of gain.
        rate_price: Of `scale_learning_rate`.
        restore_price: Of `restore`.
    """

    horizon: int = 12
    strike: float = 0.5
    price: float = 0.25
    rate_price: float = 1.5
    restore_price: float = 3.0

    def price_of_cure(self, fault: int) -> float:
        """Price of the action that is meant for a fault."""
        return self.rate_price if fault == RATE else self.price

    def outcome(
        self, fault: Ints, place: Ints, actions: Ints
    ) -> tuple[npt.NDArray[np.bool_], Floats]:
        """What an action does, before the next fault strikes.

        Args:
            fault: [B].
            place: [B], the layer that is the cause; -1 for the model as a whole.
            actions: [B, 3], adapt?, target (-1: the model) and type.

        Returns:
            Whether the run is well afterwards, and the reward; both [B].
        """
        acted, target, kind = actions[:, 0] == 1, actions[:, 1], actions[:, 2]
        cured = acted & (kind == _CURE_OF[fault]) & (target == place)
        restored = acted & (kind == RESTORE) & (target == -1)
        price = np.full(len(fault), self.price)
        price[(kind == CURES[RATE]) & (target == -1)] = self.rate_price
        price[restored] = self.restore_price
        well = (fault == NONE) | cured | restored
        return well, (well - acted * price) / self.horizon


def optimal_values(rules: Rules) -> Floats:
    """[H + 1, 4]: the most that can still be gained with so many moments left, per fault.

    Backward induction over the fault alone: where it sits changes nothing, because every place has
    its cure at the same price.
    """
    values = np.zeros((rules.horizon + 1, 4))
    for left in range(1, rules.horizon + 1):
        later = values[left - 1]
        well = _before_strike(rules, later)
        values[left, NONE] = 1 / rules.horizon + well
        for fault in FAULTS:
            price = min(rules.price_of_cure(fault), rules.restore_price)
            values[left, fault] = max(later[fault], (1 - price) / rules.horizon + well)
    return values


def optimal_return(rules: Rules) -> float:
    """The expected return of the best policy from the start of an episode."""
    return float(_before_strike(rules, optimal_values(rules)[rules.horizon]))


def optimal_actions(rules: Rules, fault: Ints, place: Ints, left: Ints) -> Ints:
    """[B, 3]: the best action for each fault, its place and the moments left."""
    values = optimal_values(rules)
    waiting, curing = values[left - 1, fault], values[left, fault]
    acts = (fault != NONE) & (curing > waiting)
    restores = np.array([rules.restore_price < rules.price_of_cure(kind) for kind in range(4)])
    kind = np.where(restores[fault], RESTORE, _CURE_OF[fault])
    target = np.where(restores[fault], -1, place)
    return np.stack([acts, np.where(acts, target, -1), np.where(acts, kind, 0)], axis=-1).astype(
        np.int64
    )


def _before_strike(rules: Rules, values: Floats) -> float:
    """Expected value of a run that is well, just before it is known whether a fault strikes."""
    struck = values[list(FAULTS)].mean()
    return float((1 - rules.strike) * values[NONE] + rules.strike * struck)
