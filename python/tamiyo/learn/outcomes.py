"""What the foreseeing heads should have said, from what then followed in a vector of runs."""

import numpy as np
import numpy.typing as npt

from tamiyo.graph.schema import GLOBAL_COLUMNS
from tamiyo.learn.segments import TARGETS

__all__ = ["OUTLOOK", "TOLERANCE", "outcome_targets"]

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

TOLERANCE = 0.1
"""Loss of objective after an action that still counts as safe. It has to be more than noise:
measured from chance to perfect, that of 128 held-out samples is doubled with two classes."""
OUTLOOK = 4
"""Decisions ahead that trends are measured over."""
_GLOBALS = [column.name for column in GLOBAL_COLUMNS]
_HEALTH, _STABILITY = _GLOBALS.index("health_mean"), _GLOBALS.index("stability")


def outcome_targets(
    rewards: Floats,
    acted: Bools,
    over: Bools,
    features: Floats,
    measured: Bools,
    *,
    wanted: Bools | None = None,
    mended: Bools | None = None,
) -> npt.NDArray[np.float32]:
    """Targets of the heads, as far as they are known.

    *Safety*: whether nothing was lost until the next action. *Risk*: how much was. *Urgency*: what
    the cure gained. *Trends*: how health, stability and urgency changed over the outlook.

    Args:
        rewards: [T, B].
        acted: [T, B], whether anything was done.
        over: [T, B], whether the episode ended after the decision.
        features: [T, B, G], `global_features` of the states decided on.
        measured: [T, B, G], which of them were.
        wanted: [T, B], whether an expert wanted anything done; without one urgency is unknown.
        mended: [T, B], whether what the expert wanted was done.

    Returns:
        [T, B, 6], `segments.TARGETS`; NaN where unknown.
    """
    gain = _gain_until_next(rewards, acted, over)
    shares = np.where(measured > 0, features, np.nan)
    urgency = np.full(rewards.shape, np.nan)
    if wanted is not None and mended is not None:
        # What is lost while nothing is done is what the cure gains.
        urgency = np.where(mended, np.clip(gain, 0.0, 1.0), np.where(wanted, np.nan, 0.0))
    safe = np.where(np.isnan(gain), np.nan, gain >= -TOLERANCE)
    rows = {
        "safety": np.where(acted, safe, np.nan),
        "risk": np.where(acted, np.clip(-gain, 0.0, 1.0), np.nan),
        "urgency": urgency,
        "health_trend": _change(shares[..., _HEALTH], over),
        "stability_trend": _change(shares[..., _STABILITY], over),
        "urgency_trend": _change(urgency, over),
    }
    return np.stack([rows[name] for name in TARGETS], axis=-1).astype(np.float32)


def _gain_until_next(rewards: Floats, acted: Bools, over: Bools) -> Floats:
    """[T, B]: rewards from each decision on, up to the run's next action or the episode's end.

    NaN where the row ends before either, so that more may follow.
    """
    gain = np.empty(rewards.shape)
    following = np.full(rewards.shape[1], np.nan)
    for step in reversed(range(len(rewards))):
        gain[step] = rewards[step] + np.where(over[step], 0.0, following)
        following = np.where(acted[step], 0.0, gain[step])
    return gain


def _change(series: Floats, over: Bools) -> Floats:
    """[T, B]: what a series gains over the outlook; NaN where the episode is over before."""
    ahead = np.full_like(series, np.nan)
    reach = max(len(series) - OUTLOOK, 0)
    episode: Floats = np.cumsum(over, axis=0) - over
    same: Bools = episode[OUTLOOK:] == episode[:reach]
    ahead[:reach] = np.where(same, series[OUTLOOK:] - series[:reach], np.nan)
    return np.clip(ahead, -1.0, 1.0)
