"""The stages of a training, each of which can be interrupted and goes on where it was."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tamiyo.bench.evaluation.splits import SEEDS, SPLITS
from tamiyo.bench.policy_training.presets import Preset
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import LAYER_TYPES
from tamiyo.learn.graphs import pack
from tamiyo.learn.imitation import Demonstrations, clone, demonstrate
from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.seeds import derive
from tamiyo.learn.training import train
from tamiyo.policy import EnhancedTamiyoPolicyGNN

__all__ = ["Report", "Workshop", "layer_types"]

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""Is told the stage, how many of its units are done and how many there are, and figures."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where a policy is trained: its runs, its files, its seed.

    Attributes:
        preset: Sizes and settings.
        directory: Of everything that is kept.
        seed: Everything random follows from it.
        env: Runs of the training split.
        report: Is told the progress.
        device: Of the networks.
    """

    preset: Preset
    directory: Path
    seed: int
    env: TrainingVectorEnv
    report: Report
    device: torch.device

    def new_policy(self) -> EnhancedTamiyoPolicyGNN:
        """A network with the random weights of this seed."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(derive(self.seed, "weights"))
            return EnhancedTamiyoPolicyGNN(self.preset.policy).to(self.device)

    def lessons(
        self, stage: str, rounds: int, pupil: EnhancedTamiyoPolicyGNN | None = None
    ) -> Demonstrations:
        """Demonstrations of so many rounds; those that are on disk are not made again."""
        parts = []
        for number in range(rounds):
            path = self.directory / stage / f"round-{number:04d}.safetensors"
            if not path.exists():
                seed = self._env_seed(stage, number)
                demonstrate(self.env, 1, seed=seed, pupil=pupil).save(path)
            parts.append(Demonstrations.load(path))
            self.report(stage, number + 1, rounds, {"states": float(sum(map(len, parts)))})
        return Demonstrations.concatenate(parts)

    def cloned(self, stage: str, lessons: Demonstrations) -> EnhancedTamiyoPolicyGNN:
        """A new network that answers as the expert did."""
        policy = self.new_policy()
        policy.trunk.fit_normalization(pack(lessons.observations))
        config = self.preset.cloning.model_copy(update={"seed": derive(self.seed, stage)})

        def report(measured: Mapping[str, float]) -> None:
            self.report(stage, int(measured["epoch"]), config.epochs, measured)

        clone(policy, lessons, config, directory=self.directory / stage, report=report)
        return policy

    def refined(self, stage: str, policy: EnhancedTamiyoPolicyGNN) -> None:
        """Go on with reinforcement learning, in place."""
        iterations = self.preset.refinements
        seed = derive(self.seed, stage)
        config = self.preset.refinement
        # Schedules (exploration, the correction of prioritised draws) end where the training does.
        steps = iterations * config.steps_of(self.preset.runs * config.rollout_length)
        own = {"seed": seed, "env_seeds": SEEDS, "num_training_steps": steps}
        config = config.model_copy(update=own)
        learner = PolicyLearner(policy, config, PrioritizedReplay(seed=seed))

        def report(measured: Mapping[str, float]) -> None:
            self.report(stage, learner.progress.iteration, iterations, measured)

        train(
            learner,
            self.env,
            iterations=iterations,
            directory=self.directory / stage,
            report=report,
        )

    def _env_seed(self, stage: str, number: int) -> int:
        """A seed of the training split."""
        return SPLITS["train"].seed(derive(self.seed, stage, number) % SEEDS)


def layer_types(lessons: Demonstrations) -> list[str]:
    """Names, as in `LAYER_TYPES`, of the types of layers that there are in some graphs."""
    real = lessons.observations["node_mask"].bool()
    names = tuple(LAYER_TYPES)
    return [names[index] for index in lessons.observations["layer_type"][real].unique().tolist()]
