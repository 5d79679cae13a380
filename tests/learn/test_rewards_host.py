"""A real host session, on the bus: its messages are what `LiveRewards` is fed with."""

import numpy as np
import pytest
import torch
from torch import nn

from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationResult,
    AdaptationType,
    ModelTopology,
    PerformanceMetrics,
    Topic,
)
from tamiyo.envs import digits_mlp
from tamiyo.host import HostSession
from tamiyo.learn.rewards import COMPONENTS, LiveRewards, Metric, QualityScale, RewardConfig
from tamiyo.oona import connect

EVERY, CHANGED, STEPS = 10, 400, 600
MESSAGES = {
    Topic.PERFORMANCE_METRICS: PerformanceMetrics,
    Topic.TOPOLOGY: ModelTopology,
    Topic.RESULTS: AdaptationResult,
}


def train(client):
    """Digits, evaluated every few steps, with a layer that is widened at half time."""
    task = digits_mlp(width=16, depth=2)
    torch.manual_seed(0)
    model = task.make_model()
    optimizer = task.make_optimizer(model)
    session = HostSession(
        model, optimizer, client, run="r", mode="autonomous", metrics_every=10**6, probe_every=10
    )
    batches = task.batches(0)
    for step in range(1, STEPS + 1):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        session.step(loss)
        if step % EVERY == 0:
            session.report(*task.evaluate(model))
        if step == CHANGED:
            decision = AdaptationDecision(
                decision_id="wider",
                run="r",
                adaptation=AdaptationType.WIDEN,
                target=(session.topology.by_name["hidden1"].layer_id,),
                parameters={"units": 16.0},
                expires_at_step=STEPS,
            )
            client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
    session.remove()


def test_the_messages_of_a_real_session_become_rewards():
    client = connect("memory://")
    subscription = client.subscribe(list(MESSAGES))
    train(client)
    rewards = LiveRewards(
        "r",
        QualityScale(Metric.ACCURACY, 0.1),
        interval_steps=EVERY,
        config=RewardConfig(episode_length=STEPS // EVERY),
    )
    told = []
    while (message := subscription.get_nowait()) is not None:
        told += rewards.observe(MESSAGES[message.topic].from_bytes(message.payload))

    assert rewards.changed_at > CHANGED
    alone = (rewards.changed_at - EVERY) // EVERY - 1
    assert not any(interval.components.any() for interval in told[:alone])
    assert all(interval.valid.all() for interval in told)
    levels = dict(zip(COMPONENTS, told[-1].levels[0], strict=True))
    assert levels["memory"] > 0  # twice the units for a third of the time
    assert told[-1].measured.all()
    assert abs(levels["accuracy"]) < 5 * told[-1].standard_error[0]
    total = sum(float(interval.reward[0]) for interval in told)
    assert total == pytest.approx(float(told[-1].objective[0]))
    credit = rewards.attribution()
    assert set(credit) == {"", "wider"}
    assert sum(credit["wider"].values()) == pytest.approx(total)
    assert np.isfinite(total)
