"""How much of an adaptation: the numbers that it needs, from what was measured, by one rule each.

A policy chooses whether, where and what. What is left follows from here, for a live decision
(`tamiyo.policy.prescription`) as for the networks that the policy learns on
(`tamiyo.envs.training`): a policy could not be carried from one to the other if the same choice
meant different doses.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CLIP_RATIO",
    "DORMANT",
    "PRUNE_SHARE",
    "RESTORE_RATE",
    "TOO_LARGE",
    "is_too_large",
    "layer_rate_factor",
    "new_activation",
    "rate_factor",
    "run_rate_factor",
    "units_to_add",
    "units_to_remove",
]

Floats = npt.NDArray[np.floating[Any]]

TYPICAL_UPDATE_RATIO = 3e-3
"""Goal for the median layer: half a decade above the 1e-3 that is commonly advised, because runs
that are short have to get there faster."""
MOST_DECADES = 3
"""A live learning rate is scaled by 1e-3 to 1e3."""
DORMANT = 0.025
"""Share of the layer's mean activity up to which a unit is dormant (ReDo, arXiv:2302.12902)."""
TOO_LARGE = 6.0
"""Root-mean-square weight times the root of the number of inputs, beyond which all units of a layer
are drawn afresh and not only dormant ones; He's initialisation has 1.4."""
CLIP_RATIO = 0.01
"""Largest gradient norm over weight norm of a unit (AGC, arXiv:2102.06171)."""
WIDEN_SHARE = 0.25
PRUNE_SHARE = 0.5
"""Most of its units that a layer loses at once."""
RESTORE_RATE = 0.5
"""What the learning rate is multiplied with when a run goes back to its last good state."""


def rate_factor(update_ratio: float, goal: float) -> float:
    """The power of ten, from 1e-3 to 1e3, that brings an update ratio nearest to its goal.

    Args:
        update_ratio: Norm of a step's change over the norm of the weights; NaN if not measured.
        goal: Where it should be.

    Returns:
        The factor; .1 where the ratio is at its goal already, or says nothing (zero, not finite),
        so that it is never 1: a decision changes something.
    """
    if not (np.isfinite(update_ratio) and update_ratio > 0 and goal > 0):
        return 0.1
    decades = int(np.clip(np.round(np.log10(goal / update_ratio)), -MOST_DECADES, MOST_DECADES))
    return 0.1 if decades == 0 else 10.0**decades


def run_rate_factor(update_ratios: Floats) -> float:
    """Factor for the learning rate of the whole run.

    Args:
        update_ratios: [N], of all layers; NaN where not measured.
    """
    return rate_factor(_median(update_ratios), TYPICAL_UPDATE_RATIO)


def layer_rate_factor(update_ratio: float, update_ratios: Floats) -> float:
    """Factor for the learning rate of one layer, which is to move like the others.

    Args:
        update_ratio: Of the layer.
        update_ratios: [N], of all layers; NaN where not measured.
    """
    return rate_factor(update_ratio, _median(update_ratios))


def is_too_large(weight_norm: float, units: int) -> bool:
    """Whether weights are far larger than any initialisation makes them.

    Args:
        weight_norm: L2 norm of the layer's weights, without biases.
        units: Number of its units.
    """
    # Of I inputs and U units, norm / sqrt(I U) is the root mean square, and I cancels.
    return weight_norm > TOO_LARGE * math.sqrt(units)


def units_to_add(width: int, widths: Sequence[int]) -> int:
    """How many units a layer grows by: a quarter, or to the typical width of its network.

    Args:
        width: Units that it has.
        widths: Units of all hidden layers, itself included.
    """
    typical = sorted(widths)[(len(widths) - 1) // 2]
    return max(1, round(WIDEN_SHARE * width), typical - width)


def units_to_remove(width: int) -> int:
    """How many dead units a layer of at least two loses at most; one always stays."""
    return min(max(1, round(PRUNE_SHARE * width)), width - 1)


def new_activation(present: str | None) -> str:
    """Name of the activation to change to: one that neither dies nor saturates on both sides.

    Args:
        present: Name of the one that is there, if it is known.
    """
    return "elu" if present == "leaky_relu" else "leaky_relu"


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
