"""The batched player decides what the judge decides about each run by itself."""

import numpy as np
import pytest

from tamiyo.bench.evaluation.network_player import NetworkPlayer
from tamiyo.bench.evaluation.run_states import RunStates
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

RUNS = 12


FREE = {"max_adaptations_per_epoch": 1000, "cooldown_steps": 1, "decision_ttl_steps": 1}
"""Neither a budget nor a cooldown worth the name."""


def load(checkpoint, **factors):
    """The policy with its thresholds multiplied, and without the limits of a live run."""
    config = EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint).config.model_dump()
    changed = {name: config[name] * factor for name, factor in factors.items()}
    return EnhancedTamiyoPolicyGNN.from_pretrained(
        checkpoint, PolicyConfig(**{**config, **FREE, **changed})
    )


@pytest.mark.parametrize(
    "factors",
    [
        {},
        {"enable_uncertainty": False},
        {"safety_margin": 0.97},
        {"uncertainty_threshold": 0.95},
        {"adaptation_confidence_threshold": 1.1},
    ],
    ids=["as it is", "without uncertainty", "safer", "less unsure", "surer"],
)
def test_it_acts_where_when_and_how_the_judge_does(small_split, checkpoint, factors):
    policy = load(checkpoint, **factors)
    player = NetworkPlayer("learned", policy)
    env = TrainingVectorEnv(RUNS, config=small_split.config)
    observation, _ = env.reset(seed=small_split.seed(0))
    player.begin(env, 0)
    runs = [RunStates(episode, str(place)) for place, episode in enumerate(env.episodes)]
    acted, held, targets = 0, 0, set()
    for _ in range(6):
        answer = player.act(env, observation)
        nodes = observation["node_mask"].shape[1]
        verdicts = [policy.decide(state) for one in runs for state in one.read()]
        for run, verdict in enumerate(verdicts):
            adapt, target, kind = answer.actions[run].tolist()
            decision = verdict.decision
            assert adapt == (decision is not None), verdict.reason
            checks = {check.name: check for check in verdict.checks}
            assert answer.confidence[run] == pytest.approx(checks["confidence"].value, abs=1e-5)
            held_back = {name for name, check in checks.items() if not check.passed}
            assert answer.proposed[run] == (held_back <= {"uncertainty"})
            if policy.config.enable_uncertainty:
                spread = checks["uncertainty"].value
                assert answer.uncertainty[run] == pytest.approx(spread, abs=1e-5)
            else:
                assert answer.uncertainty is None
            # What would be done is said whether it is done or not.
            assert ACTIONS[kind] == verdict.outputs["adaptation"]
            assert ([] if target == nodes else [target]) == verdict.outputs["target"]
            targets.add(target == nodes)
        acted += answer.actions[:, 0].sum()
        held += (answer.actions[:, 0] < answer.proposed).sum()
        observation, *_ = env.step(np.zeros_like(answer.actions))
    assert targets == {True, False}
    if not factors:
        assert 0 < acted < 6 * RUNS
    assert held == 0 or policy.config.enable_uncertainty
    assert held > 0 or factors


def test_its_name_is_that_of_the_cohort(checkpoint):
    assert NetworkPlayer.load("clone", checkpoint).name == "clone"
