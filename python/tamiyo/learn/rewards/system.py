"""The objective J = quality - cost - risk of many runs at once, and its difference, the reward."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo.learn.rewards.config import COMPONENTS, RewardConfig
from tamiyo.learn.rewards.constraints import allowed_actions
from tamiyo.learn.rewards.measurements import Array, Mask, Measurements

__all__ = ["MultiMetricRewardSystem", "Rewards"]

ACCURACY, SPEED, MEMORY, STABILITY, SAFETY = range(len(COMPONENTS))
_INTEGRATED = slice(SPEED, SAFETY)
"""Components that are means over the episode of what each interval measured."""


@dataclass(frozen=True, eq=False)
class Rewards:
    """What one decision interval was worth to each of H runs."""

    reward: Array
    """[H]: `J(t) - J(t-1)`, the sum of `components` along their last axis."""
    components: Array
    """[H, 5]: the reward's parts in the order of `COMPONENTS`, weighted and with their signs."""
    objective: Array
    """[H]: `J(t)`."""
    levels: Array
    """[H, 5]: the components of J itself on their own scales, unweighted, costs positive."""
    measured: Mask
    """[H, 5]: whether this interval measured the component; where not, it stands still until the
    next measurement, which speaks for the time in between as well."""
    standard_error: Array
    """[H]: of `J(t)`, as far as it comes from the twin being forecast; 0 for a trained twin."""
    done: Mask
    """[H]: whether this was the episode's last interval."""
    valid: Mask
    """[H]: false where the run was changed before its twin could be known: do not learn from it."""

    def report(self) -> dict[str, Array]:
        """Part of the reward by name of the component, each [H]."""
        return {name: self.components[:, index] for index, name in enumerate(COMPONENTS)}


class MultiMetricRewardSystem:
    """Rewards `J(t) - J(t-1)` for H runs, in episodes of fixed length and without discount.

    The objective is a function of the run's present state and of what the episode has cost so far,
    both relative to the twin that was left alone. Rewards are its differences, so that a return is
    `J(T) - J(0)` whatever happened in between (potential-based shaping with γ = 1; Ng, Harada and
    Russell, ICML 1999). A run that nothing was done to equals its twin and gets 0 all the time.

    What must never happen is no part of the objective, where enough gain elsewhere could pay for
    it: `allowed()` forbids it.

    Args:
        runs: H, the number of runs.
        config: Weights, scales and limits.

    Raises:
        ValueError: fewer than one run.
    """

    def __init__(self, runs: int, config: RewardConfig | None = None) -> None:
        if runs < 1:
            raise ValueError("at least one run is needed")
        self.config = config or RewardConfig()
        self._weights = np.array(self.config.weights) * np.array([1.0, -1.0, -1.0, -1.0, -1.0])
        self._levels = np.zeros((runs, len(COMPONENTS)))
        self._start = np.zeros((runs, len(COMPONENTS)))
        self._unmeasured = np.zeros((runs, SAFETY - SPEED))
        self._error = np.zeros(runs)
        self._step = np.zeros(runs, dtype=np.int64)
        self._ratios = np.ones((runs, 2))
        self._valid = np.ones(runs, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._step)

    @property
    def objective(self) -> Array:
        """[H]: the present J."""
        return np.asarray((self._levels * self._weights).sum(-1))

    @property
    def levels(self) -> Array:
        """[H, 5]: the components of the present J, on their own scales, costs positive."""
        return self._levels.copy()

    @property
    def over(self) -> Mask:
        """[H]: episodes that have had all their intervals."""
        return np.asarray(self._step >= self.config.episode_length)

    @property
    def component_returns(self) -> Array:
        """[H, 5]: what each component has added to the return of the present episode so far."""
        return np.asarray((self._levels - self._start) * self._weights)

    def reset(self, runs: Mask | None = None, *, gap: npt.ArrayLike = 0.0) -> None:
        """Begin an episode.

        Args:
            runs: [H] bool, those that begin one; all by default.
            gap: Quality above the twin's that the episode starts with, one value or [H]. It is 0
                where the twin begins as an equal copy. Where a run goes on against the same twin it
                is the last gap, so that nothing is gained by ending an episode in a bad state.
        """
        chosen = np.ones(len(self), dtype=np.bool_) if runs is None else np.asarray(runs)
        self._levels[chosen] = 0.0
        self._levels[:, ACCURACY] = np.where(chosen, gap, self._levels[:, ACCURACY])
        self._start[chosen] = self._levels[chosen]
        self._unmeasured[chosen] = 0.0
        self._error[chosen] = 0.0
        self._step[chosen] = 0
        self._ratios[chosen] = 1.0
        self._valid[chosen] = True

    def step(self, measurements: Measurements) -> Rewards:
        """Take one decision interval of every run.

        Raises:
            ValueError: another number of runs, or a run whose episode is over.
        """
        if len(measurements) != len(self):
            raise ValueError(f"{len(measurements)} runs measured, {len(self)} expected")
        if np.any(self.over):
            raise ValueError("an episode is over: reset it")
        before = self._levels.copy()
        measured = self._take(measurements)
        self._step += 1
        components = (self._levels - before) * self._weights
        return Rewards(
            reward=components.sum(-1),
            components=components,
            objective=self.objective,
            levels=self.levels,
            measured=measured,
            standard_error=self.config.accuracy * self._error,
            done=self.over,
            valid=self._valid.copy(),
        )

    def allowed(self) -> Mask:
        """[H, types]: actions that the constraints leave open, to be joined with `action_mask`."""
        return allowed_actions(
            self.config,
            compute=self._ratios[:, 0],
            memory=self._ratios[:, 1],
            rollbacks=self._levels[:, SAFETY] * self.config.rollback_limit,
            over=self.over,
        )

    def invalidate(self, runs: Mask) -> None:
        """Mark runs [H] whose twin cannot be known, until their next episode."""
        self._valid &= ~np.asarray(runs)

    def _take(self, now: Measurements) -> Mask:
        """Move the levels to the present; returns which components were measured."""
        gap = now.quality - now.twin_quality
        excess = np.stack([now.compute - 1, now.memory - 1, now.unstable - now.twin_unstable], -1)
        measured = np.ones_like(self._levels, dtype=np.bool_)
        measured[:, ACCURACY] = ~np.isnan(gap)
        measured[:, _INTEGRATED] = ~np.isnan(excess)

        self._levels[:, ACCURACY] = np.where(np.isnan(gap), self._levels[:, ACCURACY], gap)
        self._error = np.where(np.isnan(gap), self._error, now.twin_error)

        self._unmeasured += 1
        spent = excess * self._unmeasured / self.config.episode_length
        self._levels[:, _INTEGRATED] += np.where(np.isnan(spent), 0.0, spent)
        self._unmeasured[measured[:, _INTEGRATED]] = 0

        self._levels[:, SAFETY] += now.rollbacks / self.config.rollback_limit
        ratios = np.stack([now.compute, now.memory], -1)
        self._ratios = np.where(np.isnan(ratios), self._ratios, ratios)
        return measured
