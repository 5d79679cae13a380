"""How much of everything a training of the policy takes, and what can be left out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.imitation import CloningConfig
from tamiyo.policy import PolicyConfig

__all__ = ["PRESETS", "Ablation", "Preset"]


class Ablation(StrEnum):
    """Parts of the training that can be left out, to see what they are worth."""

    GRAPH = "graph"
    """Messages between layers; each is judged by itself and by what all have in common."""
    REPLAY = "replay"
    IMITATION = "imitation"
    """Reinforcement learning starts from random weights, with exploration."""
    REFINEMENT = "refinement"
    """No reinforcement learning: the clone is what comes out."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes and settings of every stage. A *round* is one episode of `runs` runs."""

    name: str
    runs: int
    """Training runs side by side."""
    lessons: int
    """Rounds in which the expert is watched."""
    guided: int
    """Rounds in which the first clone decides in half of the runs, and the expert corrects."""
    refinements: int
    """Iterations of PPO, one round each."""
    calibrations: int
    """Rounds on which the temperatures are fitted."""
    selections: int
    """Evaluation seeds on which a refined policy is compared with its clone."""
    cloning: CloningConfig
    refinement: ProductionTrainingConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def without(self, ablation: Ablation) -> "Preset":
        """The same training with one part left out."""
        match ablation:
            case Ablation.GRAPH:
                return replace(self, policy=PolicyConfig(num_gnn_layers=0))
            case Ablation.REPLAY:
                return replace(self, refinement=self.refinement.model_copy(update=NO_REPLAY))
            case Ablation.IMITATION:
                alone = self.refinement.model_copy(update=FROM_NOTHING)
                # Its rounds go to reinforcement learning instead.
                rounds = self.refinements + self.lessons + self.guided
                return replace(self, lessons=0, guided=0, refinements=rounds, refinement=alone)
            case Ablation.REFINEMENT:
                return replace(self, refinements=0)


NO_REPLAY = {"replay_share": 0.0}
FROM_NOTHING = {
    "anchor_coeff": 0.0,
    "value_warmup": 0,
    "learning_rate": 3e-4,
    "exploration": 0.05,
    "entropy_bonus_coeff": 0.01,
    "fit_normalization": True,
}
REFINEMENT = ProductionTrainingConfig(
    learning_rate=5e-5,
    batch_size=256,
    ppo_epochs=2,
    num_training_steps=100_000,
    # One episode: environments start anew in every iteration.
    rollout_length=20,
    exploration=0.0,
    entropy_bonus_coeff=0.001,
    uncertainty_regularization=0.0,
    fit_normalization=False,
    anchor_coeff=0.5,
    value_warmup=3,
)
PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "quick",
            runs=64,
            lessons=8,
            guided=2,
            refinements=5,
            calibrations=2,
            selections=2,
            cloning=CloningConfig(epochs=6),
            refinement=REFINEMENT.model_copy(update={"value_warmup": 2}),
        ),
        Preset(
            "default",
            runs=128,
            lessons=24,
            guided=8,
            refinements=20,
            calibrations=6,
            selections=16,
            cloning=CloningConfig(epochs=8),
            refinement=REFINEMENT,
        ),
    )
}
