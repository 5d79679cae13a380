"""A policy that goes on learning by reinforcement on one unseen pair of architecture and data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tamiyo.bench.evaluation.splits import SEEDS, SPLITS, TRAINED_DEPTH, Split
from tamiyo.bench.policy_training.presets import REFINEMENT
from tamiyo.envs.training.data import HELD_OUT_DATA
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.seeds import derive
from tamiyo.learn.training import train
from tamiyo.policy import EnhancedTamiyoPolicyGNN

__all__ = ["EXPERIENCES", "PAIRS", "fine_tuned"]

EXPERIENCES = 1000
"""Decisions that may be learned from."""
ITERATIONS = 3
"""Of PPO, with an equal part of the experiences each."""
COHORT = 4
"""Runs in one tensor program."""
FIRST_PLACE = 200
"""Of the pairs' seeds: apart from those of all other splits."""


def _unseen(place: int, data: str) -> Split:
    """Deeper networks than any that the shipped policy has learned on, on data it never saw."""
    config = replace(SPLITS[f"test:{data}"].config, min_hidden=TRAINED_DEPTH + 1)
    return Split(f"deep:{data}", config, (FIRST_PLACE + place) * SEEDS)


PAIRS: Mapping[str, Split] = {
    pair.name: pair for pair in map(_unseen, range(len(HELD_OUT_DATA)), HELD_OUT_DATA)
}
"""Pairs of an architecture and a data set that were both never trained on, by name."""


def fine_tuned(checkpoint: Path, pair: Split, seed: int, directory: Path) -> Path:
    """Learn from at most `EXPERIENCES` decisions of one pair.

    Args:
        checkpoint: Folder of the policy to start from, which stays as it is.
        pair: Where to learn. Its evaluation seeds are not used.
        seed: Everything random follows from it.
        directory: Where the new policy goes.

    Returns:
        The folder of the new checkpoint.

    Raises:
        CheckpointError: the policy cannot be read.
    """
    policy = EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint)
    decisions = REFINEMENT.rollout_length
    runs = EXPERIENCES // (ITERATIONS * decisions)
    steps = ITERATIONS * REFINEMENT.steps_of(runs * decisions)
    own = {
        "seed": derive(seed, pair.name),
        "env_seeds": SEEDS,
        "num_training_steps": steps,
        # Experience is too dear to be spent on the value alone, which is known already.
        "value_warmup": 0,
    }
    config = REFINEMENT.model_copy(update=own)
    # Runs of one cohort have their activation and their optimiser in common.
    env = TrainingVectorEnv(runs, config=pair.config, cohort_size=COHORT)
    try:
        learner = PolicyLearner(policy, config, PrioritizedReplay(seed=seed))
        done = train(learner, env, iterations=ITERATIONS)
    finally:
        env.close()
    record = {"from": str(checkpoint), "pair": pair.name, "seed": seed}
    policy.save_pretrained(directory, record | {"experiences": done.decisions})
    return directory
