"""Units that begin where gradients say: silent first, then started, and gone without a trace."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adaptable import Training, trainings
from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, RunSnapshot
from tamiyo.host.actions import Refusal
from tamiyo.host.actions.widen import Widen
from tamiyo.host.growth.chains import growth_site
from tamiyo.host.units import unit_chain

WIDEN = Widen()
FROM_ZERO = ("random", "gradmax", "gradmax_rectified")
METHODS = (*FROM_ZERO, "correlated")
BY_GRADIENT = METHODS[1:]


def parameters(initialization="gradmax", units=1.0, steps=2.0):
    return {"units": units, "initialization": initialization, "gradient_steps": steps}


def sites(training):
    """Layers that can begin so: no batch normalisation behind them."""
    found = []
    for layer_id in range(len(training.layers)):
        if WIDEN.applies_to(training.layers, layer_id):
            chain = unit_chain(training.layers, layer_id)
            kinds = [type(training.layers.module(i)) for i in chain.carriers]
            if not {nn.BatchNorm1d, nn.BatchNorm2d} & {*kinds}:
                found.append(layer_id)
    return found


def make(kind="mlp", activation=nn.ReLU, optimizer="adamw", seed=0):
    return Training(kind, [6, 5], False, activation, optimizer, seed)


def new_weights(training, layer_id, units):
    """Incoming and outgoing weights of the units from number `units` on."""
    chain = unit_chain(training.layers, layer_id)
    site = growth_site(training.layers, chain)
    incoming = site.layer.weight.detach().movedim(site.axis, 0).flatten(1)
    readers = [outlet.flatten(outlet.reader.weight.detach()) for outlet in site.outlets]
    return incoming[units:], torch.cat(readers, dim=1)[units:]


@settings(max_examples=25)
@given(training=trainings, data=st.data(), initialization=st.sampled_from(METHODS))
def test_the_function_stays_and_undo_is_exact(training, data, initialization):
    if not sites(training):
        return
    target = data.draw(st.lists(st.sampled_from(sites(training)), min_size=1, unique=True))
    before, snapshot = training.outputs(), RunSnapshot(training.context.run, 3)
    undo = WIDEN.apply(training.context, target, parameters(initialization))
    for expected, got in zip(before, training.outputs(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    undo()
    assert snapshot.verify()
    assert not training.optimizer._optimizer_step_post_hooks
    assert not any(module._forward_hooks for module in training.model.modules())


@pytest.mark.parametrize("initialization", BY_GRADIENT)
@pytest.mark.parametrize("kind", ["mlp", "cnn", "blocks"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_units_stay_silent_while_gradients_are_recorded_and_start_without_a_trace(
    kind, activation, initialization
):
    training, twin = make(kind, activation), make(kind, activation)
    target = sites(training)
    sizes = {i: len(training.layers.module(i).weight) for i in target}
    WIDEN.apply(training.context, target, parameters(initialization, steps=3.0))
    assert training.steps(2) == twin.steps(2)
    for layer_id, units in sizes.items():
        assert not any(side.any() for side in new_weights(training, layer_id, units))
    assert training.steps(1) == twin.steps(1)
    assert all(map(torch.equal, training.outputs(), twin.outputs()))
    for layer_id, units in sizes.items():
        incoming, outgoing = new_weights(training, layer_id, units)
        if initialization == "correlated":
            assert incoming.any(dim=1).all()
            # Towards new units of the next layer they are what makes those.
            assert layer_id != target[-1] or not outgoing.any()
        else:
            assert incoming.abs().max() <= 2.0**-100
            assert outgoing.any()
        state = training.optimizer.state[training.layers.module(layer_id).weight]
        assert not state["exp_avg"][units:].any()
    assert not any(module._forward_hooks for module in training.model.modules())
    training.steps(1)
    for layer_id, units in sizes.items():
        assert all(side.abs().max() > 1e-6 for side in new_weights(training, layer_id, units))
    assert not training.context.faults.counts


@settings(max_examples=15)
@given(training=trainings, initialization=st.sampled_from(METHODS))
def test_the_loss_goes_on_falling(training, initialization):
    target = sites(training)
    if not target:
        return
    before = functional.mse_loss(training.outputs()[0], training.target).item()
    WIDEN.apply(training.context, target, parameters(initialization))
    losses = training.steps(40)
    assert losses[0] == pytest.approx(before, rel=1e-4)
    assert losses[-1] < before
    assert set(training.optimizer.state) == set(training.model.parameters())


def test_gradmax_gives_the_new_unit_the_largest_gradient():
    norms = {}
    for initialization in ("gradmax", "random"):
        training = make("mlp", nn.Tanh, "sgd")
        if initialization == "random":
            training.steps(1)
        WIDEN.apply(training.context, [0], parameters(initialization, steps=1.0))
        if initialization == "gradmax":
            training.steps(1)
        _, outgoing = new_weights(training, 0, 6)
        existing = training.model[2].weight[:, :6].detach()
        torch.testing.assert_close(outgoing.norm(), existing.norm(dim=0).mean())
        training.optimizer.zero_grad()
        functional.mse_loss(training.model(training.inputs), training.target).backward()
        norms[initialization] = training.model[0].weight.grad[6:].norm()
    assert norms["gradmax"] > norms["random"]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_after_steps_undo_and_a_snapshot_bring_everything_back(steps):
    training = make("cnn")
    snapshot = RunSnapshot(training.context.run, 3)
    undo = WIDEN.apply(training.context, sites(training), parameters(steps=3.0))
    training.steps(steps)
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    training.steps(3)
    assert not any(module._forward_hooks for module in training.model.modules())
    assert not training.optimizer._optimizer_step_post_hooks


def test_many_growths_leave_one_hook():
    training = make()
    for _ in range(3):
        WIDEN.apply(training.context, [0], parameters(steps=1.0))
        training.steps(2)
    assert len(training.optimizer._optimizer_step_post_hooks) == 1
    training.context.remove_hooks()
    assert not training.optimizer._optimizer_step_post_hooks


def test_without_gradients_units_are_drawn_in_the_end(caplog):
    training = make()
    WIDEN.apply(training.context, [0], parameters(steps=2.0))
    training.model.eval()
    with caplog.at_level(logging.WARNING, "tamiyo.host"):
        training.steps(7)
        assert not caplog.records
        training.steps(1)
    assert "no gradients" in caplog.text
    incoming, outgoing = new_weights(training, 0, 6)
    assert incoming.any()
    assert not outgoing.any()
    assert not any(module._forward_hooks for module in training.model.modules())


def test_the_end_of_a_session_starts_the_units_with_what_is_known():
    training = make()
    WIDEN.apply(training.context, [0], parameters(steps=8.0))
    training.steps(2)
    training.context.remove_hooks()
    assert new_weights(training, 0, 6)[1].any()
    assert not any(module._forward_hooks for module in training.model.modules())
    assert not training.optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("initialization", METHODS)
def test_nothing_is_drawn_from_the_runs_own_generator(initialization):
    training = make()
    state = torch.get_rng_state()
    WIDEN.apply(training.context, [0], parameters(initialization))
    training.steps(4)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("initialization", FROM_ZERO)
def test_a_batch_normalisation_on_the_way_is_refused_without_a_trace(initialization):
    training = Training("cnn", [4, 4], True, nn.ReLU, "adamw", 0)
    snapshot = RunSnapshot(training.context.run, 3)
    with pytest.raises(Refusal, match="batch normalisation"):
        WIDEN.apply(training.context, [0], parameters(initialization))
    assert snapshot.verify()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_correlated_units_begin_behind_a_batch_normalisation(kind):
    training, twin = (Training(kind, [6, 5], True, nn.ReLU, "adamw", 0) for _ in range(2))
    WIDEN.apply(training.context, [0, 3], parameters("correlated"))
    assert training.steps(2) == twin.steps(2)
    assert all(map(torch.equal, training.outputs(), twin.outputs()))
    weight = training.model[0].weight.detach().flatten(1)
    torch.testing.assert_close(weight[6:].norm(), weight[:6].norm(dim=1).mean())
    assert training.steps(30)[-1] < twin.steps(30)[-1]
    assert not training.context.faults.counts


def test_more_units_than_directions_are_refused():
    training = make()
    with pytest.raises(Refusal, match="only 5 units"):
        WIDEN.apply(training.context, [0], parameters(units=6.0))


def test_a_compiled_model_is_refused():
    training = make()
    training.model.compile()
    with pytest.raises(Refusal, match="compiled"):
        WIDEN.apply(training.context, [0], parameters())


def test_other_processes_are_refused(monkeypatch):
    training = make()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(Refusal, match="own part of the batch"):
        WIDEN.apply(training.context, [0], parameters())


@pytest.mark.parametrize("initialization", METHODS)
def test_a_live_session_applies_it_and_takes_it_back_bit_for_bit(
    loop, client, decide, initialization
):
    run = loop("mlp", "adamw")
    run.session = HostSession(run.model, run.optimizer, client, run="run", mode="autonomous")
    run.steps(40)
    widen = decide(AdaptationType.WIDEN, (0,), units=2.0, initialization=initialization)
    client.publish_nowait(Topic.DECISIONS, widen.to_bytes())
    run.steps(9)
    assert len(run.model[0].weight) == 18
    with torch.no_grad():
        run.model[4].weight.mul_(1e4)
    run.steps(20)
    ((_, result),) = run.session.history
    assert (result.outcome, result.verified) == (Outcome.ROLLED_BACK, True)
    assert len(run.model[0].weight) == 16
    assert not run.session.stats().errors
    run.steps(5)
