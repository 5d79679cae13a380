"""Policies that read `ModelGraphState`s, as players: the rules, at the environment's time scale.

A live run is read every hundred steps or so and lasts thousands; here an interval has ten steps and
an episode about two hundred. The budget is what the environment allows, and a cure may be followed
by the next one at the following decision, when its effect has been measured once.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from tamiyo.bench.evaluation.players import Answer
from tamiyo.bench.evaluation.run_states import RunStates
from tamiyo.contracts import AdaptationDecision, AdaptationType
from tamiyo.envs.observations import Observation
from tamiyo.envs.training.faults import WHOLE_RUN
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import PolicyConfig

__all__ = ["Decider", "StatePlayer", "rules_config"]


class Decider(Protocol):
    """What decides about one state of a run at a time, in order, and remembers the run by name."""

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """A decision or none."""


def rules_config(config: TrainingConfig) -> PolicyConfig:
    """Budget and times for an environment.

    Args:
        config: The environment's.
    """
    # What is decided happens at once: the next reading, an interval later, shows its effect.
    times = max(config.interval - 1, 1)
    return PolicyConfig(
        max_adaptations_per_epoch=config.max_adaptations,
        budget_window_steps=config.most_steps,
        cooldown_steps=times,
        decision_ttl_steps=times,
    )


class StatePlayer:
    """Shows a policy the states of the runs behind the environment.

    A decision for several layers becomes one action at each of the following decisions.

    Args:
        name: Of the cohort.
        make: Makes the policy, which starts without memory in every episode.
    """

    def __init__(self, name: str, make: Callable[[PolicyConfig], Decider]) -> None:
        self._name, self._make = name, make

    @property
    def name(self) -> str:
        """Of the cohort."""
        return self._name

    def begin(self, env: TrainingVectorEnv, _seed: int) -> None:
        """Forget everything.

        Raises:
            ValueError: an environment that trains its runs in other processes.
        """
        if sum(len(episode.scenarios) for episode in env.episodes) != env.num_envs:
            raise ValueError(f"{self.name} needs the runs in this process: workers=1")
        self._policy = self._make(rules_config(env.config))
        self._runs = [RunStates(one, str(place)) for place, one in enumerate(env.episodes)]
        self._left: list[deque[tuple[int, AdaptationType]]] = [deque() for _ in range(env.num_envs)]

    def act(self, env: TrainingVectorEnv, observation: Observation) -> Answer:
        """What the policy decides, or the next part of what it decided before."""
        actions = np.zeros((env.num_envs, 3), np.int64)
        nodes = observation["node_mask"].shape[1]
        states = [state for runs in self._runs for state in runs.read()]
        for run, (state, left) in enumerate(zip(states, self._left, strict=True)):
            if not left:
                decision = self._policy.make_decision(state)
                if decision is not None:
                    targets = decision.target or (WHOLE_RUN,)
                    left.extend((target, decision.adaptation) for target in targets)
            if left:
                target, adaptation = left.popleft()
                place = nodes if target == WHOLE_RUN else target
                actions[run] = 1, place, ACTIONS.index(adaptation)
        return Answer(actions)
