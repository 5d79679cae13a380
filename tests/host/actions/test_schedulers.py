"""Learning-rate schedules of every kind keep their shape when rates are scaled or runs change."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from adaptable import Training
from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, TrainingRun
from tamiyo.host.actions import ACTIONS, Context
from tamiyo.host.state import capture, restore
from tamiyo.host.structure import original

STEPS = 30


def _sequential(optimizer):
    return lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 0.1, total_iters=6),
            lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=1e-3),
            lr_scheduler.ExponentialLR(optimizer, 0.9),
        ],
        [6, 16],
    )


def _chained(optimizer):
    parts = [lr_scheduler.ConstantLR(optimizer, 0.5, 4), lr_scheduler.StepLR(optimizer, 7, 0.5)]
    return lr_scheduler.ChainedScheduler(parts, optimizer=optimizer)


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "multi step": lambda o: lr_scheduler.MultiStepLR(o, [3, 9], 0.3),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.3, 8),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=20),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 25, 2.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=5e-3),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 2, eta_min=5e-3),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.97),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 1e-2, 5e-2, step_size_up=4),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=60),
    "one cycle, three phases": lambda o: lr_scheduler.OneCycleLR(
        o, 0.1, total_steps=60, three_phase=True
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, min_lr=2e-3, eps=0.0),
    "sequential": _sequential,
    "chained": _chained,
    "averaging": lambda o: SWALR(o, swa_lr=0.01, anneal_epochs=12),
}
ADD_SEED, SCALE = (ACTIONS[AdaptationType(kind)] for kind in ("add_seed", "scale_learning_rate"))


def make(name, lr=0.05):
    """A run with two groups of different rates, its scheduler, and the host's view of it."""
    training = Training("mlp", [4, 6], False, nn.ReLU, "sgd", 0)
    first, *others = training.model.parameters()
    groups = [{"params": [first]}, {"params": others, "lr": 2 * lr}]
    training.optimizer = torch.optim.SGD(groups, lr, momentum=0.9)
    scheduler = SCHEDULERS[name](training.optimizer)
    original(training.model)
    run = TrainingRun(training.model, training.optimizer, scheduler)
    training.context = Context(run, training.layers)
    return training, scheduler


def rates(training, scheduler, steps):
    seen = []
    for _ in range(steps):
        training.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
        seen.append([group["lr"] for group in training.optimizer.param_groups])
        assert scheduler.get_last_lr() == seen[-1]
    return torch.tensor(seen, dtype=torch.float64)


@pytest.mark.parametrize("at", [0, 5, 17])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_factor_scales_the_whole_rest_of_a_schedule(name, at):
    training, scheduler = make(name)
    twin, untouched = make(name)
    assert torch.equal(rates(training, scheduler, at), rates(twin, untouched, at))
    SCALE.apply(training.context, (), {"factor": 0.25})
    last = [group["lr"] for group in training.optimizer.param_groups]
    assert scheduler.get_last_lr() == last or at == 0
    got, expected = rates(training, scheduler, STEPS), rates(twin, untouched, STEPS)
    torch.testing.assert_close(got, 0.25 * expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_undoing_and_rolling_back_leave_a_schedule_as_it_was(name):
    training, scheduler = make(name)
    rates(training, scheduler, 5)
    before = copy.deepcopy(scheduler.state_dict())
    snapshot = RunSnapshot(training.context.run, 5)
    SCALE.apply(training.context, (), {"factor": 3.0})()
    assert snapshot.verify()
    undo = ADD_SEED.apply(
        training.context,
        (0,),
        {"units": 2.0, "training_steps": 2, "blending_steps": 3, "holding_steps": 1}
        | {"schedule": "linear"},
    )
    SCALE.apply(training.context, (), {"factor": 3.0})
    rates(training, scheduler, 4)
    undo()
    snapshot.restore()
    assert snapshot.verify()
    assert str(scheduler.state_dict()) == str(before)
    twin, untouched = make(name)
    rates(twin, untouched, 5)
    assert torch.equal(rates(training, scheduler, 9), rates(twin, untouched, 9))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_goes_on_after_saving_with_a_seed_and_a_factor(name):
    training, scheduler = make(name)
    plan = {"units": 2.0, "training_steps": 2, "blending_steps": 3, "holding_steps": 1}
    ADD_SEED.apply(training.context, (0,), plan | {"schedule": "linear"})
    SCALE.apply(training.context, (), {"factor": 0.5})
    rates(training, scheduler, 6)
    state = capture(training.context.run, training.context)
    twin, other = make(name)
    twin.optimizer.state.clear()
    restore(twin.context.run, state)
    twin.model.load_state_dict(training.model.state_dict())
    twin.optimizer.load_state_dict(training.optimizer.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cyclic schedule's own complaint about its momentum
        other.load_state_dict(scheduler.state_dict())
    assert torch.equal(rates(training, scheduler, 12), rates(twin, other, 12))
