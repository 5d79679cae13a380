import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.host import RunSnapshot, TrainingRun


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@settings(max_examples=10, deadline=None)
@given(before=st.integers(0, 3), after=st.integers(1, 4), seed=st.integers(0, 9))
def test_training_replays_bit_for_bit_after_a_restore(loop, optimizer, before, after, seed):
    run = loop("conv", optimizer, seed)
    scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, 2)
    run.steps(before)
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer, scheduler), before)
    losses = []
    for _ in range(2):
        assert snapshot.verify()
        losses.append(run.steps(after))
        scheduler.step()
        assert not snapshot.verify()
        snapshot.restore()
    assert snapshot.verify()
    assert losses[0] == losses[1]


def test_replaced_objects_come_back(loop):
    run = loop("mlp", "adamw")
    run.steps(2)
    training = TrainingRun(run.model, run.optimizer)
    snapshot = RunSnapshot(training, 2)
    old_weight, old_module = run.model[0].weight, run.model[1]
    run.model[0].weight = nn.Parameter(torch.zeros(2, 2))
    run.model[1] = nn.GELU()
    run.optimizer.add_param_group({"params": [run.model[0].weight]})
    run.optimizer.param_groups[0]["extra"] = 1
    assert not snapshot.verify()
    snapshot.restore()
    assert snapshot.verify()
    assert run.model[0].weight is old_weight
    assert run.model[1] is old_module
    assert len(run.optimizer.param_groups) == 1
    run.steps(1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["weights", "moments"])
def test_a_snapshot_knows_whether_it_is_broken(loop, where, value):
    run = loop("conv", "adamw")
    run.steps(2)
    training = TrainingRun(run.model, run.optimizer)
    healthy = RunSnapshot(training, 2)
    weight = run.model[4].weight
    spoilt = weight.data if where == "weights" else run.optimizer.state[weight]["exp_avg_sq"]
    spoilt[0, 0, 0, 0] = value
    spoilt_snapshot = RunSnapshot(training, 2)
    # It tells the state that was kept, whatever the run has come to.
    healthy.restore()
    assert not healthy.broken()
    assert spoilt_snapshot.broken()
    assert spoilt_snapshot.broken(healthy)


def test_what_is_not_finite_in_a_healthy_run_is_no_damage(loop):
    run = loop("conv", "adamw")
    run.model.register_parameter("unused", nn.Parameter(torch.full((2,), math.nan)))
    run.model.register_buffer("mask", torch.full((2,), -math.inf))
    run.steps(2)
    good = RunSnapshot(TrainingRun(run.model, run.optimizer), 2)
    assert good.broken()
    assert not RunSnapshot(good.run, 2).broken(good)
    run.model.unused.data.zero_()
    assert not RunSnapshot(good.run, 2).broken()


def change_bit(run):
    run.model[0].weight.data[0, 0] += 1


def change_state(run):
    run.optimizer.state[run.model[0].weight]["exp_avg"][0, 0] += 1


def change_sign_of_zero(run):
    run.model[0].bias.data[0] = -0.0


CHANGES = {
    "weight": change_bit,
    "optimiser state": change_state,
    "sign of zero": change_sign_of_zero,
    "rate": lambda run: run.optimizer.param_groups[0].update(lr=1.0),
    "mode": lambda run: run.model.eval(),
    "random state": lambda run: torch.rand(1),
    "lost state": lambda run: run.optimizer.state.pop(run.model[0].weight),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_sees_every_kind_of_difference(loop, change):
    run = loop("mlp", "adamw")
    run.steps(2)
    with torch.no_grad():
        run.model[0].bias[0] = 0.0
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer), 2)
    CHANGES[change](run)
    assert not snapshot.verify()
    snapshot.restore()
    assert snapshot.verify()


def test_weights_that_are_not_finite_are_kept_and_compared(loop):
    run = loop("mlp")
    run.model[0].weight.data[0, 0] = float("nan")
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer), 0)
    assert snapshot.verify()


def test_random_state_can_be_left_alone(loop):
    run = loop("mlp")
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer), 0)
    torch.rand(1)
    state = torch.get_rng_state()
    snapshot.restore(random_state=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert snapshot.verify(random_state=False)


def test_buffers_are_used_again(loop):
    run = loop("mlp", "adamw")
    run.steps(1)
    training = TrainingRun(run.model, run.optimizer)
    first = RunSnapshot(training, 1)
    addresses = {copy.data_ptr() for copy in first._store._copies}
    run.steps(1)
    second = RunSnapshot(training, 2, reuse=first)
    assert {copy.data_ptr() for copy in second._store._copies} == addresses
    assert second.verify()


def test_a_gradient_scaler_is_part_of_it(loop):
    run = loop("mlp")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer, scaler=scaler), 0)
    state = copy.deepcopy(scaler.state_dict())
    scaler.update(2.0)
    assert not snapshot.verify()
    snapshot.restore()
    assert scaler.state_dict() == state


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["weight", "buffer", "moment"])
def test_what_has_become_infinite_shows(loop, where, value):
    run = loop("conv", "adamw")
    run.steps(2)
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer), 2)
    assert not snapshot.broken_since()
    tensor = {
        "weight": run.model[0].weight,
        "buffer": run.model[1].running_var,
        "moment": run.optimizer.state[run.model[0].weight]["exp_avg"],
    }[where]
    with torch.no_grad():
        tensor.view(-1)[0] = value
    assert snapshot.broken_since()
    assert not RunSnapshot(TrainingRun(run.model, run.optimizer), 2).broken_since()


def test_large_values_and_new_parameters_are_not_broken(loop):
    run = loop("mlp", "adamw")
    run.steps(2)
    snapshot = RunSnapshot(TrainingRun(run.model, run.optimizer), 2)
    with torch.no_grad():
        run.model[0].weight.fill_(3e38)
    run.model[2].weight = nn.Parameter(torch.ones(8, 16))
    assert not snapshot.broken_since()
    run.model[2].weight = nn.Parameter(torch.full((8, 16), torch.nan))
    assert snapshot.broken_since()
