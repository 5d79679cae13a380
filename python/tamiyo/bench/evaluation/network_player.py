"""The learned policy as a player: one batched pass for all runs, the judge's thresholds."""

from pathlib import Path

import torch

from tamiyo.bench.evaluation.players import Answer
from tamiyo.envs.observations import Observation
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.learn.graphs import FIELDS, pack
from tamiyo.learn.rollout import to_env_actions
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import WHOLE_MODEL, Action
from tamiyo.policy.calibration import tempered
from tamiyo.policy.judgement import thresholds

__all__ = ["NetworkPlayer"]


class NetworkPlayer:
    """Acts where `tamiyo.policy.judgement.Judge` would, but for its budget and its cooldown.

    The environment has a budget of its own, and the readings are from after the last action.

    Args:
        name: Of the cohort.
        network: The policy with its thresholds and its calibration.
    """

    def __init__(self, name: str, network: EnhancedTamiyoPolicyGNN) -> None:
        self._name, self.network = name, network

    @classmethod
    def load(cls, name: str, directory: str | Path) -> "NetworkPlayer":
        """A policy from a checkpoint.

        Raises:
            CheckpointError: what `EnhancedTamiyoPolicyGNN.from_pretrained` cannot read.
        """
        return cls(name, EnhancedTamiyoPolicyGNN.from_pretrained(directory))

    @property
    def name(self) -> str:
        """Of the cohort."""
        return self._name

    def begin(self, env: TrainingVectorEnv, seed: int) -> None:
        """Nothing to prepare: the network keeps no memory."""

    @torch.inference_mode()
    def act(self, env: TrainingVectorEnv, observation: Observation) -> Answer:
        """The likeliest target and type of every run, done where all conditions hold."""
        network = self.network
        config, calibration = network.config, network.calibration
        padded = {name: torch.as_tensor(observation[name]) for name in FIELDS}
        device = network.device
        outputs = network(pack(padded).to(device), uncertainty=config.enable_uncertainty)
        distribution = outputs["distribution"]
        proposed = distribution.can_adapt
        conditions = {one.name: one for one in thresholds(outputs, config, calibration)}
        for name, condition in conditions.items():
            if name != "uncertainty":
                proposed = proposed & condition.passed
        unsure = conditions.get("uncertainty")
        acts = proposed if unsure is None else proposed & unsure.passed
        probability = tempered(outputs["adaptation_prob"], calibration.adapt_temperature)
        row, kind = distribution.greedy_target()
        sizes = torch.bincount(distribution.inputs.node_graph, minlength=env.num_envs)
        target = row - (sizes.cumsum(0) - sizes)
        target = torch.where(row < distribution.inputs.nodes, target, WHOLE_MODEL)
        nodes = observation["node_mask"].shape[1]
        return Answer(
            to_env_actions(Action(acts, target, kind), nodes),
            proposed.numpy(force=True),
            probability.numpy(force=True),
            conditions["confidence"].value.numpy(force=True),
            None if unsure is None else unsure.value.numpy(force=True),
        )
