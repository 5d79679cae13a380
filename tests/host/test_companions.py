"""Averages of the weights change their shape together with the model."""

import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from adaptable import Training, adapt, trainings
from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, RunSnapshot, StructureError, TrainingRun
from tamiyo.host.actions import ACTIONS, Context, Refusal
from tamiyo.host.companions import Companion
from tamiyo.host.state import capture, restore
from tamiyo.host.structure import original, table

SEED = {"units": 2.0, "training_steps": 1.0, "blending_steps": 2.0, "holding_steps": 1.0}


def averaged(training, decay=0.9, **options):
    """The training with an average of its weights, which is updated after every step."""
    original(training.model)
    average = AveragedModel(
        training.model, multi_avg_fn=get_ema_multi_avg_fn(decay), **{"use_buffers": True} | options
    )
    companion = Companion(average, training.model)
    run = TrainingRun(training.model, training.optimizer, companions=[companion])
    training.context = Context(run, training.layers)
    training.context.good = None
    return average, companion


def apply(training, kind, target, **parameters):
    action = ACTIONS[AdaptationType(kind)]
    complete = {name: rule.check(name, parameters.get(name)) for name, rule in action.rules.items()}
    return action.apply(training.context, target, complete)


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(map(torch.equal, first.values(), second.values()))


@settings(max_examples=4)
@given(training=trainings, seed=st.integers(0, 999), use_buffers=st.booleans())
def test_after_any_adaptations_averaging_goes_on(training, seed, use_buffers):
    average, companion = averaged(training, use_buffers=use_buffers)
    choose = random.Random(seed)  # noqa: S311
    for _ in range(8):
        adapt(training, choose)
        training.steps(1)
        average.update_parameters(training.model)
        assert table(companion.inside) == table(training.model)
    assert torch.isfinite(average(training.inputs)).all()


@pytest.mark.parametrize(
    ("kind", "layer", "parameters"),
    [
        ("widen", 0, {"units": 3.0}),
        ("prune", 0, {}),
        ("insert_normalization", 0, {}),
        ("add_seed", 0, SEED),
        ("change_activation", 1, {"to": "gelu"}),
    ],
)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_an_average_that_is_equal_stays_equal_and_undoing_is_exact(model, kind, layer, parameters):
    training = Training(model, [5, 6], False, nn.ReLU, "adamw", 0)
    average, companion = averaged(training, decay=0.0)
    training.steps(2)
    average.update_parameters(training.model)
    average.update_parameters(training.model)
    assert same(companion.inside, training.model)
    activity = torch.ones(5)
    activity[[1, 3]] = 0.0
    training.context.activity[0] = activity
    before = companion.inside.state_dict()
    undo = apply(training, kind, (layer,), **parameters)
    assert same(companion.inside, training.model)
    assert torch.equal(companion.inside(training.inputs), training.model(training.inputs))
    undo()
    assert same(companion.inside, training.model)
    after = companion.inside.state_dict(keep_vars=True)
    assert all(after[name].data_ptr() == value.data_ptr() for name, value in before.items())


def test_what_no_average_can_follow_is_refused():
    training = Training("mlp", [5, 6], False, nn.ReLU, "adamw", 0)
    averaged(training)
    snapshot = RunSnapshot(training.context.run, 0)
    with pytest.raises(Refusal, match="cannot follow net2net"):
        apply(training, "widen", (0,), initialization="net2net")
    assert snapshot.verify()
    with pytest.raises(StructureError, match="has to be a copy of the model"):
        Companion(nn.Linear(1, 1), training.model)


def test_a_rollback_brings_the_average_back_too(loop, client, decide):
    run = loop("mlp")
    average = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    session = HostSession(
        run.model, run.optimizer, client, run="run", mode="autonomous", companions=[average]
    )
    run.session = session
    for _ in range(5):
        run.step()
        average.update_parameters(run.model)
    decision = decide(AdaptationType.ADD_SEED, (0,), **SEED)
    client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
    before = copy.deepcopy(average.state_dict())
    run.step()
    assert [result.outcome for _, result in session.history] == [Outcome.APPLIED]
    for _ in range(3):
        run.step()
        average.update_parameters(run.model)
    assert len(average.state_dict()) > len(before)
    with torch.no_grad():
        run.model[0].weight.fill_(torch.nan)
    average.update_parameters(run.model)
    session.step(loss=float("nan"))
    [(_, result)] = session.history
    assert (result.outcome, result.verified) == (Outcome.ROLLED_BACK, True)
    after = average.state_dict()
    assert list(after) == list(before)
    assert all(map(torch.equal, after.values(), before.values()))
    average.update_parameters(run.model)
    session.remove()


def test_restoring_leaves_no_average_that_is_not_finite_or_of_another_form():
    training = Training("mlp", [5, 6], False, nn.ReLU, "adamw", 0)
    average, companion = averaged(training)
    apply(training, "add_seed", (0,), **SEED)
    training.steps(3)
    average.update_parameters(training.model)
    snapshot = RunSnapshot(training.context.run, 0)
    training.steps(5)
    with torch.no_grad():
        companion.inside[2].weight.fill_(torch.nan)
    assert table(companion.inside) == table(training.model)
    snapshot.restore()
    assert table(companion.inside) != table(training.model)
    companion.align(training.model)
    assert table(companion.inside) == table(training.model)
    assert torch.equal(companion.inside[2].weight, training.model[2].weight)
    average.update_parameters(training.model)


def test_an_average_is_saved_and_resumed():
    training = Training("mlp", [5, 6], False, nn.ReLU, "adamw", 0)
    average, _ = averaged(training)
    apply(training, "widen", (0,), units=2.0)
    apply(training, "add_seed", (0,), **SEED)
    training.steps(3)
    average.update_parameters(training.model)
    state = capture(training.context.run, training.context)
    model, optimizer = training.fresh()
    again = AveragedModel(model, use_buffers=True)
    restore(TrainingRun(model, optimizer, companions=[Companion(again, model)]), state)
    again.load_state_dict(average.state_dict())
    assert same(again, average)
