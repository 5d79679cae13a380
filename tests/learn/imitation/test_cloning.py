"""A clone answers as its expert did, and an interrupted one ends where it would have."""

from dataclasses import replace

import pytest
import torch

from tamiyo.learn.graphs import pack
from tamiyo.learn.imitation.cloning import CloningConfig, clone, one_cycle
from tamiyo.learn.imitation.demonstrations import Demonstrations
from tamiyo.learn.segments import TARGETS
from tamiyo.policy.actions import Action

STATES = 192


@pytest.fixture
def lessons(make_graphs):
    """Where the first layer's first measurement is high, change that layer; else leave it."""
    graphs = make_graphs([4] * STATES)
    graphs["x_measured"][..., 0] = True
    graphs["action_mask"][:, :, 2] = True
    ill = graphs["x"][:, 0, 0] > 0
    targets = torch.full((STATES, len(TARGETS)), torch.nan)
    targets[:, TARGETS.index("safety")] = ill.float()
    targets[:, TARGETS.index("urgency")] = ill.float()
    targets[:, TARGETS.index("health_trend")] = ill.float() - 0.5
    action = Action(ill, torch.where(ill, 0, -1), torch.where(ill, 2, 0))
    returns = torch.where(torch.arange(STATES) % 3 == 0, torch.nan, ill.float())
    return Demonstrations(graphs, action, torch.ones(STATES), targets, returns)


def same(one, other):
    assert one.offered.any()
    return torch.equal(one.offered, other.offered) and all(
        torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_the_clone_answers_as_the_expert(lessons, make_network):
    network = make_network(lively=False)
    clone(network, lessons, CloningConfig(epochs=30, batch_size=32, learning_rate=1e-2))
    with torch.no_grad():
        outputs = network(pack(lessons.observations))
    distribution, ill = outputs["distribution"], lessons.action.adapt
    answer = distribution.mode()
    assert (answer.adapt == ill).float().mean() > 0.95
    right = (answer.target == 0) & (answer.type == 2)
    assert right[ill & answer.adapt].float().mean() > 0.95
    assert outputs["safety_score"][ill].mean() > 0.8
    assert outputs["safety_score"][~ill].mean() < 0.2
    value = outputs["value_estimate"]
    assert value[ill].mean() > value[~ill].mean() + 0.5
    assert outputs["urgency_score"][ill].mean() > outputs["urgency_score"][~ill].mean() + 0.5
    trend = outputs["temporal_analysis"]["health_trend"]
    assert trend[ill].mean() > trend[~ill].mean() + 0.3


def test_weights_count(lessons, make_network):
    config = CloningConfig(epochs=20, batch_size=32, learning_rate=1e-2)
    weights = torch.where(lessons.action.adapt, 1e-6, 1.0)
    idle = replace(lessons, weights=weights)
    network = make_network(lively=False)
    clone(network, idle, config)
    with torch.no_grad():
        outputs = network(pack(lessons.observations))
    assert outputs["adaptation_prob"].max() < 0.1


@pytest.mark.parametrize("done", [1, 2, 3])
def test_an_interrupted_clone_ends_with_the_same_numbers(lessons, make_network, tmp_path, done):
    config = CloningConfig(epochs=3, batch_size=32)
    whole, half, resumed = make_network(), make_network(), make_network()
    clone(whole, lessons, config)

    def interrupt(measured):
        if measured["epoch"] == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(half, lessons, config, directory=tmp_path, report=interrupt)
    assert same(half, whole) == (done == config.epochs)
    clone(resumed, lessons, config, directory=tmp_path)
    assert same(resumed, whole)


def test_a_clone_that_was_finished_knows_all_it_knew(lessons, make_network, tmp_path):
    config = CloningConfig(epochs=1, batch_size=32)
    finished, resumed = make_network(), make_network(seed=7)
    for network in (finished, resumed):
        clone(network, lessons, config, directory=tmp_path)
    assert same(resumed, finished)


def test_every_epoch_is_reported(lessons, make_network):
    seen = []
    clone(make_network(), lessons, CloningConfig(epochs=2, batch_size=64), report=seen.append)
    assert [row["epoch"] for row in seen] == [1.0, 2.0]
    assert {"imitation", "safety", "urgency", "temporal"} <= set(seen[0])
    assert seen[1]["imitation"] < seen[0]["imitation"]


def test_too_few_states_are_refused(lessons, make_network):
    with pytest.raises(ValueError, match="make no batch"):
        clone(make_network(), lessons[torch.arange(10)], CloningConfig(batch_size=11))


def test_the_learning_rate_rises_and_falls():
    assert one_cycle(0.0) == pytest.approx(0.1)
    assert one_cycle(0.1) == pytest.approx(1.0)
    assert one_cycle(0.55) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(0.0)
