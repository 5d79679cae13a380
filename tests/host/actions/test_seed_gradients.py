"""A seed that begins where its gradient is largest is not felt while it finds out."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from adaptable import Training
from tamiyo.host import RunSnapshot
from tamiyo.host.actions import Refusal
from tamiyo.host.actions.add_seed import AddSeed
from tamiyo.host.lifecycle import Stage

ADD = AddSeed()


def plan(initialization="gradmax", training=12, steps=3.0, units=0.5):
    return {
        "units": units,
        "training_steps": float(training),
        "blending_steps": 6.0,
        "holding_steps": 2.0,
        "schedule": "linear",
        "initialization": initialization,
        "gradient_steps": steps,
    }


def make(kind="mlp"):
    return Training(kind, [6, 5], False, nn.ReLU, "adamw", 0)


def sites(training):
    return [i for i in range(len(training.layers)) if ADD.applies_to(training.layers, i)]


@pytest.mark.parametrize("kind", ["mlp", "cnn", "blocks"])
def test_it_is_silent_then_starts_and_the_host_trains_bit_for_bit_as_without_it(kind):
    training, twin = make(kind), make(kind)
    ADD.apply(training.context, sites(training), plan())
    networks = [seed.network for seed in training.context.seed_bed]
    assert training.steps(2) == twin.steps(2)
    assert not any(network[i].weight.any() for network in networks for i in (0, 2))
    assert training.steps(1) == twin.steps(1)
    for network in networks:
        assert not network[0].weight.any()
        assert network[2].weight.any()
    assert training.steps(6) == twin.steps(6)
    assert all(network[0].weight.any() for network in networks)
    training.steps(14)
    assert {seed.stage for seed in training.context.seed_bed} == {Stage.PERMANENT}
    assert not training.context.faults.counts


def test_the_bottlenecks_gradient_is_larger_than_in_random_directions():
    training = make()
    ADD.apply(training.context, [0], plan(steps=1.0))
    training.steps(1)
    (seed,) = training.context.seed_bed
    first, last = seed.network[0], seed.network[2]

    def gradient():
        training.optimizer.zero_grad()
        functional.mse_loss(training.model(training.inputs), training.target).backward()
        return first.weight.grad.norm()

    largest, norms = gradient(), last.weight.detach().norm(dim=0)
    for _ in range(5):
        with torch.no_grad():
            frame = torch.linalg.qr(torch.randn_like(last.weight)).Q
            last.weight.copy_(frame * norms)
        assert gradient() <= largest


@pytest.mark.parametrize("steps", [0, 2, 6, 20])
def test_undoing_it_leaves_the_bare_model(steps):
    training = make("cnn")
    snapshot = RunSnapshot(training.context.run, 0)
    undo = ADD.apply(training.context, sites(training), plan())
    training.steps(steps)
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    assert not training.optimizer._optimizer_step_post_hooks
    training.steps(1)


def test_a_seed_that_would_be_blended_before_it_starts_is_refused():
    training = make()
    snapshot = RunSnapshot(training.context.run, 0)
    with pytest.raises(Refusal, match="needs training steps"):
        ADD.apply(training.context, [0], plan(training=3))
    assert snapshot.verify()
    assert not list(training.context.seed_bed)
