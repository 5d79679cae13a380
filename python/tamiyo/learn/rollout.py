"""The fresh stream: decisions that the policy itself makes in a vector environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from tamiyo.learn.experience import Experience
from tamiyo.learn.graphs import FIELDS, pack
from tamiyo.learn.outcomes import outcome_targets
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import WHOLE_MODEL, Action

__all__ = ["Rollout", "collect", "to_env_actions"]

_OUTCOMES = ("rewards", "adapt", "over", "global_features", "global_measured")
"""Recorded columns that tell what followed."""


@dataclass(frozen=True, eq=False, slots=True)
class Rollout:
    """What was collected, and what the policy that collected it thought."""

    experience: Experience
    values: Tensor
    """[T, B]."""
    next_values: Tensor
    """[T, B]; see `Experience.next_values`."""
    returns: tuple[float, ...]
    """Return of every episode that ended."""

    @classmethod
    def judged_by(
        cls, network: EnhancedTamiyoPolicyGNN, experience: Experience, returns: tuple[float, ...]
    ) -> "Rollout":
        """Experience with the values that a network gives it."""
        index = experience.valid.flatten().nonzero()[:, 0]
        values = torch.zeros(experience.valid.numel())
        with torch.no_grad():
            outputs = network(experience.graphs(index).to(network.device))
        values[index] = outputs["value_estimate"].cpu()
        values = values.view(experience.shape)
        following = experience.next_values(values, values_of(network, experience.finals))
        return cls(experience, values, following, returns)


def to_env_actions(action: Action, nodes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[B, 3] as environments take them: the target after the last node is the whole model."""
    target = torch.where(action.target == WHOLE_MODEL, nodes, action.target)
    return torch.stack([action.adapt.long(), target, action.type], dim=-1).cpu().numpy()


class _Recorder:
    """Arrays of T steps that grow a step at a time."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.columns: dict[str, Tensor] = {}
        self.finals: list[Mapping[str, Tensor]] = []
        self.final_at: list[int] = []

    def keep(self, step: int, **rows: Tensor) -> None:
        for name, row in rows.items():
            if name not in self.columns:
                self.columns[name] = torch.empty((self.steps, *row.shape), dtype=row.dtype)
            self.columns[name][step] = row

    def keep_finals(self, step: int, rows: Tensor, observations: Mapping[str, Tensor]) -> None:
        """The observations that followed a step in the rows where no decision does."""
        if len(rows):
            self.finals.append({name: observations[name][rows] for name in FIELDS})
            self.final_at += (step * len(observations["x"]) + rows).tolist()


@torch.no_grad()
def collect(
    env: VectorEnv[Any, Any, Any],
    network: EnhancedTamiyoPolicyGNN,
    steps: int,
    *,
    seed: int,
    exploration: float = 0.0,
) -> Rollout:
    """Start every run anew and let the policy decide for so many steps.

    Whatever is random follows from `seed`, so that a rollout can be had again.

    Args:
        env: Runs in parallel; observations as `tamiyo.envs.observations` describes them, a run that
            ends starts anew in the same step (`AutoresetMode.SAME_STEP`).
        network: The policy; its values are those of the rollout.
        steps: T.
        seed: Of the environment and of the policy's draws.
        exploration: ε of the mixture that actions are drawn from.

    Raises:
        ValueError: an environment that resets at another moment.
    """
    if env.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
        raise ValueError("the environment must reset within the step that ends an episode")
    generator = torch.Generator(network.device).manual_seed(seed)
    raw, _ = env.reset(seed=seed)
    record, current, finished = _Recorder(steps), np.zeros(env.num_envs), list[float]()
    for step in range(steps):
        observation = {name: torch.as_tensor(raw[name]) for name in FIELDS}
        outputs = network(pack(observation).to(network.device))
        action = outputs["distribution"].sample(generator, exploration)
        log_prob = outputs["distribution"].log_prob(action, exploration)
        # Recorded before the environment moves on: it may reuse its arrays.
        record.keep(step, **observation)
        nodes = raw["node_mask"].shape[1]
        raw, reward, terminated, truncated, infos = env.step(to_env_actions(action, nodes))
        over = terminated | truncated
        record.keep(
            step,
            adapt=action.adapt,
            target=action.target,
            type=action.type,
            log_prob=log_prob,
            values=outputs["value_estimate"],
            rewards=torch.tensor(reward, dtype=torch.float32),
            terminated=torch.tensor(terminated),
            over=torch.tensor(over),
            done=torch.tensor(over | (step == steps - 1)),
        )
        unfinished = record.columns["done"][step] & ~record.columns["terminated"][step]
        last = _last_observation(raw, infos, over)
        record.keep_finals(step, unfinished.nonzero()[:, 0], last)
        current += reward
        finished += current[over].tolist()
        current[over] = 0.0
    return _rollout(record, network, tuple(finished))


def _last_observation(
    raw: Mapping[str, Any], infos: Mapping[str, Any], over: np.ndarray[Any, Any]
) -> dict[str, Tensor]:
    """What followed the step, before any run started anew."""
    last = {name: torch.tensor(raw[name]) for name in FIELDS}
    if not over.any():
        return last
    final = infos["final_obs"]
    for row in np.flatnonzero(over):
        # Native vectors hand over a Dict of arrays, gymnasium's own an array of Dicts.
        one = final[row] if isinstance(final, np.ndarray) else {n: final[n][row] for n in FIELDS}
        for name in FIELDS:
            last[name][row] = torch.as_tensor(one[name])
    return last


def _rollout(
    record: _Recorder, network: EnhancedTamiyoPolicyGNN, returns: tuple[float, ...]
) -> Rollout:
    columns, rewards = record.columns, record.columns["rewards"]
    everywhere = torch.ones_like(rewards, dtype=torch.bool)
    experience = Experience(
        observations={name: columns[name] for name in FIELDS},
        actions=Action(columns["adapt"], columns["target"], columns["type"]),
        log_prob=columns["log_prob"],
        rewards=rewards,
        terminated=columns["terminated"],
        done=columns["done"],
        sampled=everywhere,
        valid=everywhere,
        finals=_joined(record.finals, columns),
        final_at=torch.tensor(record.final_at, dtype=torch.long),
        targets=torch.as_tensor(
            outcome_targets(*(columns[name].numpy() for name in _OUTCOMES)),
        ),
    )
    final_values = values_of(network, experience.finals)
    return Rollout(
        experience,
        columns["values"],
        experience.next_values(columns["values"], final_values),
        returns,
    )


def _joined(finals: list[Mapping[str, Tensor]], columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not finals:
        return {name: columns[name][0, :0] for name in FIELDS}
    return {name: torch.cat([part[name] for part in finals]) for name in FIELDS}


@torch.no_grad()
def values_of(network: EnhancedTamiyoPolicyGNN, padded: Mapping[str, Tensor]) -> Tensor:
    """[F]: the network's value of padded graphs [F, ...], on the processor."""
    if not len(padded["x"]):
        return torch.empty(0)
    values: Tensor = network(pack(padded).to(network.device))["value_estimate"]
    return values.cpu()
