"""Many adaptations in a row, and structural ones on trial in a real session."""

import io
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adaptable import QUICK, Training, adapt, trainings
from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, TopologyRecorder, TrainingRun
from tamiyo.host.actions import ACTIONS, Context


@settings(max_examples=8)
@given(training=trainings, seed=st.integers(0, 999))
def test_thirty_legal_adaptations_leave_a_model_that_trains_saves_and_loads(training, seed):
    choose = random.Random(seed)  # noqa: S311
    for _ in range(30):
        adapt(training, choose)
        training.steps(1)
        owned = [p for i in range(len(training.layers)) for p in training.layers.parameters(i)]
        assert {id(p) for p in owned} == {id(p) for p in training.model.parameters()}
        assert len(owned) == len(set(owned))
        trained = [p for group in training.optimizer.param_groups for p in group["params"]]
        assert [id(p) for p in trained] == [id(p) for p in training.model.parameters()]
        assert set(training.optimizer.state) <= set(owned)
    losses = training.steps(30)
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert losses[-1] < losses[0]
    training.context.remove_hooks()
    training.context.seed_bed.settle()
    model = training.model.eval()
    assert not any(type(m).__module__.startswith("tamiyo") for m in model.modules())
    saved = io.BytesIO()
    torch.save((model, training.optimizer.state_dict()), saved)
    saved.seek(0)
    loaded, state = torch.load(saved, weights_only=False)
    assert torch.equal(loaded(training.inputs), model(training.inputs))
    twin = type(training.optimizer)(loaded.parameters(), lr=0.1)
    twin.load_state_dict(state)
    loaded.train()(training.inputs).square().mean().backward()
    twin.step()


def session_of(client, decide, run, **options):
    session = HostSession(
        run.model, run.optimizer, client, run="run", mode="autonomous", horizon=12, **options
    )
    run.session = session
    run.steps(20)

    def send(kind, target, name, **parameters):
        client.publish_nowait(
            Topic.DECISIONS, decide(kind, target, name=name, **parameters).to_bytes()
        )

    return session, send


def outcome(session, name):
    return {decision.decision_id: result for decision, result in session.history}[name]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("widen", {"units": 3.0}),
        ("insert_normalization", {}),
        ("add_seed", {**QUICK, "blending_steps": 4}),
    ],
)
def test_a_structural_adaptation_is_kept_or_rolled_back(
    loop, client, decide, kind, parameters, optimizer
):
    run = loop("mlp", optimizer)
    session, send = session_of(client, decide, run)
    inputs = run.inputs()
    before = run.model(inputs)
    sizes = [node.parameters for node in session.topology.nodes]
    send(kind, (0,), "kept", **parameters)
    run.session.step(loss=run.backward(inputs).detach())
    assert outcome(session, "kept").outcome is Outcome.APPLIED
    torch.testing.assert_close(run.model(inputs), before, rtol=0, atol=1e-6)
    assert [node.parameters for node in session.topology.nodes] != sizes
    run.steps(14)
    assert outcome(session, "kept").outcome is Outcome.KEPT
    assert session.stats().errors == {}

    run = loop("mlp", optimizer)
    session, send = session_of(client, decide, run)
    layer, weight = run.model[0], run.model[0].weight
    send(kind, (0,), "hurt", **parameters)
    run.steps(5)
    for _ in range(2):
        run.step()
        session.step(loss=float("nan"))
    result = outcome(session, "hurt")
    assert (result.outcome, result.verified) == (Outcome.ROLLED_BACK, True)
    assert run.model[0] is layer
    assert run.model[0].weight is weight
    assert session.topology.nodes[0].parameters == weight.numel() + len(weight)
    run.steps(3)
    session.remove()
    assert session.stats().errors == {}


def test_a_removal_that_is_complete_can_still_be_rolled_back(loop, client, decide):
    run = loop("mlp", "adamw")
    session, send = session_of(client, decide, run)
    send("add_seed", (0,), "add", **QUICK)
    run.steps(20)
    assert outcome(session, "add").outcome is Outcome.KEPT
    seeded = run.model[0]
    send("remove_seed", (0,), "remove", blending_steps=2)
    run.steps(6)
    assert type(run.model[0]) is nn.Linear
    session.step(loss=float("nan"))
    result = outcome(session, "remove")
    assert (result.outcome, result.verified) == (Outcome.ROLLED_BACK, True)
    assert run.model[0] is seeded
    run.steps(3)
    assert session.stats().errors == {}


def test_layers_are_still_measured_after_they_were_changed(loop, client, decide):
    run = loop("conv", "adamw")
    session, send = session_of(client, decide, run, probe_budget=1.0)
    for number, (kind, layer) in enumerate(
        [("widen", "0"), ("add_seed", "4"), ("remove_seed", "4"), ("widen", "0")]
    ):
        quick = {"blending_steps": 2.0} if kind.endswith("seed") else {}
        quick |= {"training_steps": 1.0} if kind == "add_seed" else {}
        send(kind, (session.topology.by_name[layer].layer_id,), f"d{number}", **quick)
        run.steps(14)
        assert outcome(session, f"d{number}").outcome is Outcome.KEPT
        sample = session._last_sample
        for name in ("activation_variance", "gradient_norm", "weight_norm", "update_ratio"):
            layer_id = session.topology.by_name[layer].layer_id
            assert sample.columns[name][layer_id] > 0
    assert session.stats().errors == {}


def test_per_layer_clipping_and_rates_follow_a_widened_layer():
    training = Training("mlp", [4, 6], False, nn.ReLU, "sgd", 0)
    context = training.context
    training.optimizer.param_groups[0]["momentum"] = 0
    ACTIONS[AdaptationType.CLIP_GRADIENTS].apply(context, (0,), {"ratio": 1e-4})
    ACTIONS[AdaptationType.SCALE_LEARNING_RATE].apply(context, (2,), {"factor": 0.001})
    both = {"units": 2.0, "initialization": "net2net"}
    ACTIONS[AdaptationType.WIDEN].apply(context, (0, 2), both)
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    training.steps(1)
    changes = {
        name: (p - before[name]).norm() / before[name].norm()
        for name, p in training.model.named_parameters()
    }
    assert changes["0.weight"] < 1e-4
    assert changes["2.weight"] < 0.1 * changes["4.weight"]


def test_a_second_session_finds_its_way_in_an_adapted_model():
    training = Training("mlp", [4, 6], False, nn.ReLU, "adamw", 0)
    ACTIONS[AdaptationType.INSERT_NORMALIZATION].apply(training.context, (0,), {})
    training.steps(2)
    recorder = TopologyRecorder(training.model)
    recorder.attach()
    training.steps(1)
    recorder.detach()
    layers = recorder.layers()
    assert recorder.complete
    owned = [p for i in range(len(layers)) for p in layers.parameters(i)]
    assert {id(p) for p in owned} == {id(p) for p in training.model.parameters()}
    context = Context(TrainingRun(training.model, training.optimizer), layers)
    last = layers.ids["2"]
    assert ACTIONS[AdaptationType.WIDEN].applies_to(layers, last)
    ACTIONS[AdaptationType.WIDEN].apply(
        context, (last,), {"units": 1.0, "initialization": "zero_outgoing"}
    )
    training.steps(2)
