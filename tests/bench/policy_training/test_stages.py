"""Refinement keeps to the training split, and its schedules end where it ends."""

from dataclasses import replace

import pytest
import torch

from tamiyo.bench.evaluation.splits import SEEDS
from tamiyo.bench.policy_training import PRESETS
from tamiyo.bench.policy_training.stages import Workshop
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.policy import PolicyConfig

TINY = replace(
    PRESETS["quick"],
    runs=4,
    refinements=3,
    refinement=PRESETS["quick"].refinement.model_copy(
        update={"batch_size": 64, "replay_share": 0.5, "exploration": 0.2, "target_kl": None}
    ),
    policy=PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2),
)


class SeenSeeds(TrainingVectorEnv):
    """Keeps the seeds that it is reset with."""

    def reset(self, *, seed=None, options=None):
        self.seeds = [*getattr(self, "seeds", []), seed]
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_are_those_of_the_split_and_schedules_end_with_the_training(tmp_path, seed):
    env, seen = SeenSeeds(4, config=TrainingConfig(max_hidden=2, widths=(16,))), []
    shop = Workshop(
        TINY, tmp_path, seed, env, lambda *args: seen.append(args[-1]), torch.device("cpu")
    )
    shop.refined("refinement", shop.new_policy())
    assert len(env.seeds) == 3
    assert all(0 <= one < SEEDS for one in env.seeds)
    assert len(set(env.seeds)) == 3
    # 80 decisions in minibatches of 32 fresh ones, twice an iteration.
    assert [measured["optimizer_steps"] for measured in seen] == [6.0, 12.0, 18.0]
    # Explored for the first half of nine of eighteen steps.
    assert [measured["exploration"] for measured in seen] == pytest.approx([0.2, 0.2 / 3, 0.0])
