"""The trainer's face: one policy, its learner and its replay memory."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from tamiyo.collect import ProductionHealthCollector
from tamiyo.contracts import AdaptationResult
from tamiyo.graph import ModelGraphBuilder
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.live import Episode, Execute, LiveEpisodes, LiveSettings
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.rollout import Rollout
from tamiyo.learn.seeds import derive
from tamiyo.learn.segment_batch import stack
from tamiyo.learn.training import TrainingSummary, train
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

__all__ = ["LiveSummary", "ProductionPolicyTrainer"]


@dataclass(frozen=True, slots=True)
class LiveSummary:
    """What was learned from beside a live run."""

    episodes: int
    returns: tuple[float, ...]
    """Of each episode; NaN where its rewards were not valid, and nothing was learned from it."""
    decisions: int


class ProductionPolicyTrainer:
    """Trains a policy from experience: in environments, or beside a live run.

    Args:
        policy: The network to train, in place.
        policy_config: The configuration that the network was made with.
        training_config: The learner's settings.

    Attributes:
        replay_buffer: The memory that old experience is drawn from. A live loop may feed it with
            `add_experience`.
        learner: What takes the optimiser's steps.

    Raises:
        TypeError: an argument of another type.
        ValueError: the network was made with another configuration.
    """

    def __init__(
        self,
        policy: EnhancedTamiyoPolicyGNN,
        policy_config: PolicyConfig,
        training_config: ProductionTrainingConfig,
    ) -> None:
        for value, kind in (
            (policy, EnhancedTamiyoPolicyGNN),
            (policy_config, PolicyConfig),
            (training_config, ProductionTrainingConfig),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        if policy.config != policy_config:
            raise ValueError("the policy was made with another PolicyConfig")
        self.policy = policy
        self.policy_config = policy_config
        self.training_config = training_config
        self.replay_buffer = PrioritizedReplay(seed=training_config.seed)
        self.learner = PolicyLearner(policy, training_config, self.replay_buffer)
        self._history: list[Mapping[str, float]] = []
        self._live: LiveEpisodes | None = None

    def train(
        self,
        env: VectorEnv[Any, Any, Any],
        *,
        iterations: int | None = None,
        directory: str | Path | None = None,
        checkpoint_every: int = 1,
        tensorboard: bool = False,
        progress: bool = False,
        stop: Callable[[Mapping[str, float]], bool] | None = None,
    ) -> TrainingSummary:
        """Train in an environment; see `tamiyo.learn.training.train` for the arguments."""
        summary = train(
            self.learner,
            env,
            iterations=iterations,
            directory=directory,
            checkpoint_every=checkpoint_every,
            tensorboard=tensorboard,
            progress=progress,
            stop=stop,
        )
        self._history = list(summary.history)
        return summary

    async def train_with_experience_collection(
        self,
        health_collector: ProductionHealthCollector,
        graph_builder: ModelGraphBuilder,
        num_episodes: int = 1000,
        *,
        settings: LiveSettings | None = None,
        execute: Execute | None = None,
    ) -> LiveSummary:
        """Collect episodes of a live run and learn after each, until it ends.

        Args:
            health_collector: Collecting already.
            graph_builder: Makes the graphs.
            num_episodes: Most episodes.
            settings: How the run is judged and paced.
            execute: Has decisions carried out. Without it the run is only watched, which trains
                the value and the outlook, and leaves the policy alone.

        Raises:
            RuntimeError: the collector is not collecting.
            ValueError: fewer than one episode.
        """
        if num_episodes < 1:
            raise ValueError(f"num_episodes must be at least 1, not {num_episodes}")
        if not health_collector.is_collecting:
            raise RuntimeError("the collector has to collect before anything can be learned")
        generator = torch.Generator(self.policy.device)
        generator.manual_seed(derive(self.training_config.seed, "live"))
        episodes = self._live = LiveEpisodes(
            health_collector,
            graph_builder,
            self.policy,
            settings or LiveSettings(),
            execute,
            generator,
        )
        returns: list[float] = []
        while len(returns) < num_episodes:
            exploration, version = self.learner.exploration, self.learner.progress.iteration
            episode = await episodes.next(exploration, version)
            if episode is None:
                break
            returns.append(episode.reward)
            if episode.segments:
                await asyncio.to_thread(self._learn, episode, exploration)
            if episode.ended == "run":
                break
        return LiveSummary(len(returns), tuple(returns), self.learner.progress.decisions)

    def take_result(self, result: AdaptationResult) -> None:
        """Tell a collection that runs what became of one of its decisions later on."""
        if self._live is not None:
            self._live.take_result(result)

    def _learn(self, episode: Episode, exploration: float) -> None:
        experience = stack(episode.segments)
        rollout = Rollout.judged_by(self.policy, experience, (episode.reward,))
        iteration = self.learner.progress.iteration
        measured = self.learner.learn(rollout, exploration)
        self._history.append({"iteration": float(iteration), **measured})

    def get_training_statistics(self) -> dict[str, Any]:
        """What the training has done so far.

        Returns:
            `iterations`, `optimizer_steps`, `decisions`; `replay`: segments, transitions and bytes
            held; `latest`: the newest iteration's measurements, empty before the first; `history`:
            all of them.
        """
        done = self.learner.progress
        memory = self.replay_buffer
        return {
            "iterations": done.iteration,
            "optimizer_steps": done.optimizer_steps,
            "decisions": done.decisions,
            "replay": {
                "segments": len(memory),
                "transitions": memory.transitions,
                "bytes": memory.nbytes,
            },
            "latest": dict(self._history[-1]) if self._history else {},
            "history": [dict(row) for row in self._history],
        }
