"""Broken runs on a real data set recover when the right decision is sent."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tamiyo.contracts import AdaptationDecision, AdaptationType, Outcome, Topic
from tamiyo.host import HostSession
from tamiyo.oona import connect

STEPS, FAULT_AT, DECIDED_AFTER = 3000, 1200, 60


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(images / 16, dtype=torch.float32)[order]
    labels = torch.tensor(labels)[order]
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
}


def rate_times_100(_model, optimizer):
    for group in optimizer.param_groups:
        group["lr"] *= 100


def dead_layer(model, _optimizer):
    with torch.no_grad():
        model[2].bias.fill_(-10)


def zero_weights(model, _optimizer):
    with torch.no_grad():
        model[2].weight.zero_()
        model[4].weight.zero_()


def train(digits, optimizer_name, *, fault=None, adaptation=None, target=(), seed=0):
    images, labels, test_images, test_labels = digits
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    client = connect()
    session = HostSession(
        model, optimizer, client, run="digits", mode="autonomous", probe_budget=0.05
    )
    alarms = 0
    for step in range(1, STEPS + 1):
        if step == FAULT_AT and fault is not None:
            fault(model, optimizer)
        batch = torch.randint(0, len(images), (64,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step(loss=loss)
        alarms += session._governor.alarm is not None
        if step == FAULT_AT + DECIDED_AFTER and adaptation is not None:
            decision = AdaptationDecision(
                decision_id="cure",
                run="digits",
                term=0,
                adaptation=adaptation,
                target=target,
                issued_at_step=step,
                expires_at_step=step + 100,
            )
            client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
    with torch.no_grad():
        right = model(test_images).argmax(dim=1) == test_labels
    session.remove()
    assert session.stats().errors == {}
    return float(right.float().mean()), session, alarms


@pytest.fixture(scope="module")
def healthy(digits):
    return {name: train(digits, name)[0] for name in OPTIMIZERS}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("fault", "adaptation", "target"),
    [
        (rate_times_100, AdaptationType.RESTORE, ()),
        (dead_layer, AdaptationType.RESTORE, ()),
        (zero_weights, AdaptationType.RESTORE, ()),
        (dead_layer, AdaptationType.REINITIALIZE, (2,)),
    ],
)
def test_a_cured_run_ends_within_three_points_of_a_healthy_one(
    digits, healthy, optimizer, fault, adaptation, target
):
    accuracy, session, alarms = train(
        digits, optimizer, fault=fault, adaptation=adaptation, target=target
    )
    assert alarms > 0
    ((_, result),) = session.history
    assert result.outcome is Outcome.KEPT
    assert accuracy > healthy[optimizer] - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(10))
def test_twenty_healthy_runs_raise_no_alarm(digits, optimizer, seed):
    _, session, alarms = train(digits, optimizer, seed=seed)
    assert alarms == 0
    assert session.history == ()
