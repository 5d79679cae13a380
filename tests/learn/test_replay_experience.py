"""Single transitions of live runs, gathered into segments."""

import numpy as np
import pytest
import torch

from random_segments import same_segment
from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationType,
    HealthSignal,
    ModelTopology,
    SignalBatch,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.graph import ACTIONS, ModelGraphBuilder
from tamiyo.learn.observations import Observations
from tamiyo.learn.replay import PrioritizedReplay

PRUNE = ACTIONS.index(AdaptationType.PRUNE)


def topology(run="run", layers=3):
    actions = (AdaptationType.PRUNE,)
    nodes = tuple(
        TopologyNode(layer_id=i, name=str(i), type="Linear", parameters=10, actions=actions)
        for i in range(layers)
    )
    edges = tuple(TopologyEdge(source=i, target=i + 1) for i in range(layers - 1))
    return ModelTopology(run=run, nodes=nodes, edges=edges, actions=actions)


def state(at, model=None):
    """What a run looks like at a step; every step looks different."""
    signal = HealthSignal(layer_id=0, epoch=0, step=at, timestamp=float(at), health_score=at / 1000)
    batch = SignalBatch.from_signals([signal])
    return ModelGraphBuilder().build_model_graph(batch, model or topology())


def decision(*layers, log_prob=None):
    return AdaptationDecision(
        decision_id="d",
        run="run",
        adaptation=AdaptationType.PRUNE,
        target=layers,
        expires_at_step=10,
        log_prob=log_prob,
    )


def moments(segment):
    return [block[at : at + 1] for block in segment.blocks for at in range(len(block))]


def seen(*states):
    return [Observations.from_data(state.graph_data) for state in states]


def is_made_of(segment, *states):
    return all(a.equals(b) for a, b in zip(moments(segment), seen(*states), strict=True))


def test_the_example_of_the_specification():
    memory = PrioritizedReplay()
    for at in range(20):
        memory.add_experience(
            state=state(at), action=decision(1), reward=0.5, next_state=None, td_error=abs(0.5)
        )
    (segment,) = memory.segments
    assert is_made_of(segment, *(state(at) for at in range(17)))
    assert segment.adapt.all()
    assert segment.target.tolist() == [1] * 16
    assert segment.type.tolist() == [PRUNE] * 16
    assert segment.reward.tolist() == [0.5] * 16
    assert not (segment.terminated | segment.truncated | segment.sampled).any()
    assert np.isnan(segment.targets).all()
    assert memory.priorities[0] == (0.5 + 1e-3) ** 0.6
    memory.end_episode("run")
    _, second = memory.segments
    assert is_made_of(second, *(state(at) for at in range(16, 20)))
    assert memory.transitions == 19, "what followed the last one nobody knows"


def test_a_next_state_completes_a_transition_at_once():
    memory = PrioritizedReplay()
    for at in range(16):
        memory.add_experience(state(at), None, 1.0, state(at + 1))
    (segment,) = memory.segments
    assert is_made_of(segment, *(state(at) for at in range(17)))
    assert not segment.adapt.any()
    assert segment.target.tolist() == [-1] * 16
    memory.end_episode("run")
    assert len(memory) == 1


def test_what_does_not_follow_is_another_segment():
    memory = PrioritizedReplay()
    memory.add_experience(state(0), None, 1.0, state(1))
    memory.add_experience(state(1), None, 2.0, state(2))
    memory.add_experience(state(7), None, 3.0, state(8))
    memory.end_episode("run")
    first, second = memory.segments
    assert is_made_of(first, state(0), state(1), state(2))
    assert is_made_of(second, state(7), state(8))
    assert [*first.reward, *second.reward] == [1, 2, 3]


def test_an_episode_ends_where_it_is_said_to():
    memory = PrioritizedReplay()
    memory.add_experience(state(0), None, 1.0)
    memory.add_experience(state(1), None, 1.0, terminated=True)
    memory.add_experience(state(2), None, 1.0)
    memory.add_experience(state(3), None, 1.0, state(4), truncated=True)
    terminated, truncated = memory.segments
    assert terminated.terminated.tolist() == [False, True]
    assert not terminated.truncated.any()
    assert truncated.truncated.tolist() == [False, True]
    assert is_made_of(truncated, state(2), state(3), state(4))
    with pytest.raises(ValueError, match="last moment"):
        memory.add_experience(state(5), None, 1.0, truncated=True)


def test_runs_do_not_mix():
    memory = PrioritizedReplay()
    for at in range(4):
        for run in ("a", "b"):
            memory.add_experience(state(at, topology(run)), None, float(run == "a"))
    memory.end_episode("a")
    memory.end_episode("b")
    memory.end_episode("b")
    first, second = memory.segments
    assert first.reward.tolist() == [1, 1, 1]
    assert second.reward.tolist() == [0, 0, 0]
    assert memory.structures == 1


def test_a_decision_that_changed_the_structure_ends_the_segment_on_the_new_one():
    memory = PrioritizedReplay()
    larger = topology(layers=4)
    memory.add_experience(state(0), None, 1.0)
    memory.add_experience(state(1), decision(0), 2.0)
    memory.add_experience(state(2, larger), None, 3.0)
    memory.add_experience(state(3, larger), None, 4.0)
    memory.end_episode("run")
    first, second = memory.segments
    assert is_made_of(first, state(0), state(1), state(2, larger))
    assert first.successor.structure.nodes == 4
    assert is_made_of(second, state(2, larger), state(3, larger))
    assert memory.structures == 2
    assert first.successor.structure is second.observations.structure


def test_a_new_version_of_the_policy_begins_a_segment():
    memory = PrioritizedReplay()
    memory.add_experience(state(0), None, 1.0)
    memory.advance(3)
    memory.add_experience(state(1), None, 2.0)
    memory.add_experience(state(2), None, 3.0)
    memory.end_episode("run")
    assert [segment.policy_version for segment in memory.segments] == [0, 3]
    assert is_made_of(memory.segments[0], state(0), state(1))


def test_what_trains_the_policy_is_said_by_the_caller():
    memory = PrioritizedReplay()
    memory.add_experience(state(0), decision(2, log_prob=-1.5), 1.0, sampled=True)
    memory.add_experience(state(1), None, 1.0, log_prob=-0.25, sampled=True)
    memory.add_experience(state(2), decision(), 1.0, targets={"risk": 1.0, "health_trend": -0.5})
    memory.add_experience(state(3), None, 1.0, terminated=True)
    (segment,) = memory.segments
    assert segment.sampled.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(segment.log_prob, [-1.5, -0.25, np.nan, np.nan])
    assert segment.target.tolist() == [2, -1, -1, -1]
    assert segment.adapt.tolist() == [True, False, True, False]
    expected = [np.nan, 1.0, np.nan, -0.5, np.nan, np.nan]
    np.testing.assert_array_equal(segment.targets[2], expected)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"action": decision(0, 1)}, "one layer or the whole model"),
        ({"action": decision(9)}, "layer 9 is not in the graph"),
        ({"reward": float("nan")}, "reward must be finite"),
        ({"sampled": True}, "log_prob of a sampled action"),
        ({"targets": {"luck": 1.0}}, "unknown targets: luck"),
        ({"targets": {"risk": 2.0}}, "target risk is out of range"),
        ({"td_error": -1.0}, "finite and not negative"),
        ({"td_error": float("nan")}, "finite and not negative"),
    ],
)
def test_a_transition_that_makes_no_sense_is_refused_and_leaves_nothing(arguments, text):
    memory = PrioritizedReplay()
    memory.add_experience(state(0), None, 1.0)
    before = memory.state_dict()
    with pytest.raises(ValueError, match=text):
        memory.add_experience(**{"state": state(1), "action": None, "reward": 1.0} | arguments)
    after = memory.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) or torch.isnan(tensor).any(), name


def test_an_unknown_error_gives_the_largest_priority():
    memory = PrioritizedReplay()
    memory.add_experience(state(0), None, 1.0, td_error=2.0, terminated=True)
    memory.add_experience(state(1), None, 1.0, td_error=9.0)
    memory.add_experience(state(2), None, 1.0, terminated=True)
    memory.add_experience(state(3), None, 1.0, td_error=1.0)
    memory.add_experience(state(4), None, 1.0, td_error=0.0, terminated=True)
    expected = [2.001**0.6, 2.001**0.6, 0.501**0.6]
    np.testing.assert_array_equal(memory.priorities, expected)


@pytest.mark.parametrize("with_next", [False, True])
def test_open_episodes_survive_a_restart(with_next):
    def grow(memory, start, end):
        for at in range(start, end):
            following = state(at + 1) if with_next else None
            memory.add_experience(state(at), decision(at % 3), float(at), following, td_error=at)

    whole, first, second = (PrioritizedReplay() for _ in range(3))
    grow(whole, 0, 23)
    grow(first, 0, 21)
    first.add_experience(state(0, topology("other", 4)), None, 1.0)
    second.load_state_dict(first.state_dict())
    grow(second, 21, 23)
    whole.end_episode("run")
    second.end_episode("run")
    assert len(whole) == len(second) == 2
    assert all(map(same_segment, whole.segments, second.segments))
    np.testing.assert_array_equal(whole.priorities, second.priorities)
    second.add_experience(state(1, topology("other", 4)), None, 1.0, terminated=True)
    assert len(second.segments[-1]) == 2


def test_a_next_state_that_was_given_survives_a_restart():
    first, second = PrioritizedReplay(), PrioritizedReplay()
    first.add_experience(state(0), None, 1.0, state(1))
    second.load_state_dict(first.state_dict())
    second.add_experience(state(7), None, 1.0)
    (segment,) = second.segments
    assert is_made_of(segment, state(0), state(1))
