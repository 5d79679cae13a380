"""Pruning dead units preserves the function, goes on training and is undone bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adaptable import Training, trainings
from tamiyo.host import RunSnapshot
from tamiyo.host.actions import Refusal
from tamiyo.host.actions.prune import Prune

PRUNE = Prune()
ALL = {"units": 1e4, "criterion": "dead"}


def sites(training):
    return [i for i in range(len(training.layers)) if PRUNE.applies_to(training.layers, i)]


def kill(training, layer_id, dead):
    """Silence units, as a sample of their activity would show it."""
    module = training.layers.module(layer_id)
    with torch.no_grad():
        module.weight[dead] = 0
        if module.bias is not None:
            module.bias[dead] = 0
        for reader in training.layers.successors[layer_id]:
            norm = training.layers.module(reader)
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.weight[dead] = 0
                norm.bias[dead] = 0
    activity = torch.ones(module.weight.shape[0])
    activity[dead] = 0
    training.context.activity[layer_id] = activity


@settings(max_examples=40)
@given(training=trainings, data=st.data())
def test_dead_units_leave_without_a_trace_and_come_back_bit_for_bit(training, data):
    if not (places := sites(training)):
        return
    target = data.draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    alive = {}
    for layer_id in target:
        units = training.layers.module(layer_id).weight.shape[0]
        dead = data.draw(st.sets(st.integers(0, units - 1), min_size=1, max_size=units - 1))
        alive[layer_id] = [unit for unit in range(units) if unit not in dead]
        kill(training, layer_id, sorted(dead))
    before, snapshot = training.outputs(), RunSnapshot(training.context.run, 3)
    undo = PRUNE.apply(training.context, target, ALL)
    for layer_id, units in alive.items():
        assert training.layers.module(layer_id).weight.shape[0] == len(units)
    for expected, got in zip(before, training.outputs(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    undo()
    assert snapshot.verify()


@settings(max_examples=20)
@given(training=trainings)
def test_the_loss_goes_on_falling_and_moments_keep_their_units(training):
    if not (places := sites(training)):
        return
    layer_id = places[0]
    module = training.layers.module(layer_id)
    training.steps(2)
    kill(training, layer_id, [0])
    moments = dict(training.optimizer.state[module.weight])
    before = functional.mse_loss(training.outputs()[0], training.target).item()
    PRUNE.apply(training.context, [layer_id], ALL)
    state = training.optimizer.state[module.weight]
    for key, value in moments.items():
        if value.dim():
            assert torch.equal(state[key], value[1:])
        else:
            assert torch.equal(state[key], value)
            assert state[key] is not value
    losses = training.steps(40)
    assert losses[0] == pytest.approx(before, rel=1e-4)
    assert losses[-1] < before


@settings(max_examples=15)
@given(training=trainings, steps=st.integers(1, 3))
def test_after_steps_undo_and_a_snapshot_bring_everything_back(training, steps):
    if not (places := sites(training)):
        return
    kill(training, places[0], [0])
    snapshot = RunSnapshot(training.context.run, 3)
    undo = PRUNE.apply(training.context, places[:1], ALL)
    training.steps(steps)
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    training.steps(1)


def test_at_most_the_given_share_is_removed_and_never_all():
    training = Training("mlp", [6], False, nn.ReLU, "sgd", 0)
    kill(training, 0, [0, 2, 3, 5])
    PRUNE.apply(training.context, [0], {"units": 0.34, "criterion": "dead"})
    assert training.model[0].out_features == training.model[2].in_features == 4
    kill(training, 0, [0, 1, 2, 3])
    PRUNE.apply(training.context, [0], ALL)
    assert training.model[0].weight.shape == (1, 5)
    assert not PRUNE.applies_to(training.layers, 0)


def test_it_needs_a_measurement_and_something_dead():
    training = Training("mlp", [6], False, nn.ReLU, "sgd", 0)
    with pytest.raises(Refusal, match="not measured"):
        PRUNE.apply(training.context, [0], ALL)
    kill(training, 0, [])
    with pytest.raises(Refusal, match="no unit of the target is dead"):
        PRUNE.apply(training.context, [0], ALL)
    assert training.context.activity[0].tolist() == [1.0] * 6
