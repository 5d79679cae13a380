"""The four rules find the faults that they are about, and leave sound runs alone."""

import numpy as np
import pytest

from tamiyo.bench.evaluation.lineup import Lineup
from tamiyo.bench.evaluation.playing import Job, play
from tamiyo.bench.evaluation.run_states import RunStates
from tamiyo.bench.evaluation.splits import Split
from tamiyo.bench.evaluation.state_player import rules_config
from tamiyo.bench.evaluation.tuned_rules import TunedRules
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv

SOUND = TrainingConfig(decisions=8, interval=10, max_hidden=4, widths=(16,), held_out=32, faulty=0)


def tuned(config, runs=12):
    """Rows of runs of a depth that these rules are right about."""
    return play(Job(Split("x", config, 0), 1, runs, Lineup(("tuned",))))["tuned"]


@pytest.mark.parametrize(
    "kind",
    [
        FaultKind.LARGE_LAYER,
        FaultKind.SATURATED,
        FaultKind.BOTTLENECK,
        FaultKind.RATE_LOW,
        FaultKind.FROZEN_LAYER,
    ],
)
def test_each_finds_its_fault_when_it_has_seen_it_twice(kind):
    config = TrainingConfig(
        decisions=14,
        interval=10,
        min_hidden=2,
        max_hidden=4,
        widths=(16,),
        held_out=32,
        faults=(kind,),
        faulty=1.0,
    )
    rows = tuned(config)
    assert rows.curable.all()
    assert rows.right.mean() >= 0.75
    delays = (rows.first - rows.struck)[rows.right]
    assert (delays >= 1).all()
    assert (delays == 1).mean() >= 0.5


def test_a_cure_is_tried_once_in_a_place_even_if_nothing_comes_of_it():
    config = TrainingConfig(
        decisions=8,
        interval=5,
        min_hidden=3,
        max_hidden=3,
        widths=(16,),
        held_out=32,
        faults=(FaultKind.BOTTLENECK,),
        faulty=1.0,
    )
    env = TrainingVectorEnv(8, config=config)
    _, infos = env.reset(seed=1)
    states, rules = RunStates(env.episodes[0], "x"), TunedRules(rules_config(config))
    decided = []
    for _ in range(config.decisions):
        decisions = [rules.make_decision(state) for state in states.read()]
        decided.append([one is not None and one.adaptation == "widen" for one in decisions])
        for decision, layer in zip(decisions, infos["fault_layer"], strict=True):
            if decision is not None and decision.adaptation == "widen":
                assert decision.target == (2 * layer,)
        env.step(np.zeros((8, 3), np.int64))
    assert np.sum(decided, axis=0).tolist() == [1] * 8
    assert np.argmax(decided, axis=0).tolist() == [1] * 8


def test_sound_runs_are_left_alone():
    assert tuned(SOUND, runs=32).adapted.sum() <= 1
