"""A hundred random legal adaptations in a row leave an ordinary model."""

import copy
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptable import Training, adapt, chosen_parameters, legal, measure_activity, trainings
from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, TrainingRun
from tamiyo.host.actions import ACTIONS, Context, Refusal
from tamiyo.host.state import capture, restore, resume
from tamiyo.host.structure import original


def check_undoing_in_reverse(training, choose, count):
    """Adaptations between two steps, taken back last first, leave no trace at all."""
    snapshot, undos = RunSnapshot(training.context.run, 0), []
    for _ in range(count):
        kind, layer_id = choose.choice(legal(training))
        action = ACTIONS[AdaptationType(kind)]
        measure_activity(training)
        parameters = chosen_parameters(choose, action.rules)
        try:
            undos.append(action.apply(training.context, (layer_id,), parameters))
        except Refusal:
            continue
    for undo in reversed(undos):
        undo()
    assert snapshot.verify()


def check_saving(training):
    """Saved, built anew and loaded it is the same run."""
    state = capture(training.context.run, training.context)
    model, optimizer = training.fresh()
    run = TrainingRun(model, optimizer)
    twin = copy.copy(training)
    twin.model, twin.optimizer, twin.layers = model, optimizer, restore(run, state)
    twin.context = Context(run, twin.layers)
    resume(twin.context, state)
    model.load_state_dict(training.model.state_dict())
    optimizer.load_state_dict(copy.deepcopy(training.optimizer.state_dict()))
    assert twin.steps(3) == training.steps(3)


def check_compiling(training):
    """Compiled it computes and trains as before, to rounding."""
    torch._dynamo.reset()
    model = copy.deepcopy(training.model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected, got = training.model(training.inputs), compiled(training.inputs)
    torch.testing.assert_close(got, expected)
    for output in (got, expected):
        output.square().mean().backward()
    for one, other in zip(model.parameters(), training.model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def check(training, seed, count):
    original(training.model)
    choose = random.Random(seed)  # noqa: S311
    for _ in range(count):
        adapt(training, choose)
        training.steps(1)
    check_undoing_in_reverse(training, choose, count // 5)
    losses = training.steps(40)
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert losses[-1] < losses[0]
    check_saving(training)
    training.context.remove_hooks()
    training.context.seed_bed.settle()
    assert {type(m).__module__.split(".")[0] for m in training.model.modules()} <= {
        "torch",
        "adaptable",
    }
    training.optimizer.zero_grad()
    check_compiling(training)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(training=trainings, seed=st.integers(0, 10**6))
def test_a_hundred_adaptations_leave_a_model_that_trains_saves_loads_and_compiles(training, seed):
    check(training, seed, 100)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "blocks"])
def test_ten_adaptations_do_so_too(kind):
    check(Training(kind, [4, 5], True, torch.nn.ReLU, "adamw", 1), 1, 10)
