"""Each adaptation does what its table says and is undone bit for bit."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.host import RunSnapshot, TopologyRecorder, TrainingRun
from tamiyo.host.actions import ACTIONS, Context, Refusal
from tamiyo.host.actions.clip_gradients import clip_adaptively
from tamiyo.host.actions.reinitialize import dormant_units
from tamiyo.host.readers import unit_readers
from tamiyo.host.snapshot import state_bytes

REINIT = {"threshold": 0.025, "scope": "dormant"}


def context_of(loop, steps=4, scheduler=None):
    recorder = TopologyRecorder(loop.model)
    recorder.attach()
    loop.steps(steps)
    recorder.detach()
    run = TrainingRun(loop.model, loop.optimizer, scheduler)
    return Context(run, recorder.layers(), seed=3)


def activity(context, name, dead):
    layer_id = context.layers.ids[name]
    units = context.layers.module(layer_id).weight.shape[0]
    values = torch.ones(units)
    values[list(dead)] = 0
    context.activity = {layer_id: values}
    return layer_id


def cases(context, name):
    ids = context.layers.ids
    yield "scale_learning_rate", (), {"factor": 0.1}
    yield "scale_learning_rate", (0,), {"factor": 3.0}
    yield "clip_gradients", (), {"ratio": 0.01}
    yield "restore", (), {"learning_rate_factor": 0.5}
    if name == "mlp":
        yield "change_activation", (ids["1"],), {"to": "leaky_relu"}
        yield "change_activation", (ids["2"],), {"to": "gelu"}
    layer = {"mlp": "0", "conv": "4", "residual": "up"}[name]
    activity(context, layer, {0, 2})
    yield "reinitialize", (ids[layer],), REINIT
    yield "reinitialize", (ids[layer],), {**REINIT, "scope": "all"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["mlp", "conv", "residual"])
def test_every_undo_is_exact_and_training_goes_on_as_if_nothing_happened(loop, name, optimizer):
    run = loop(name, optimizer)
    context = context_of(run)
    context.good = RunSnapshot(context.run, 0)
    run.steps(2)
    for kind, target, parameters in cases(context, name):
        before = RunSnapshot(context.run, 0)
        undo = ACTIONS[kind].apply(context, target, parameters)
        undo()
        assert before.verify(), (kind, target)
    losses = run.steps(3)
    twin = loop(name, optimizer)
    twin.steps(4 + 2)
    assert twin.steps(3) == losses
    for a, b in zip(run.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("name", "layer"), [("mlp", "0"), ("conv", "4"), ("conv", "0")])
def test_recycling_dead_units_preserves_the_function_and_makes_them_trainable(
    loop, name, layer, optimizer
):
    run = loop(name, optimizer)
    context = context_of(run)
    module = run.model.get_submodule(layer)
    if layer == "0" and name == "conv":
        norm = run.model.get_submodule("1")
        with torch.no_grad():
            norm.weight[1] = 0
            norm.bias[1] = -1
    with torch.no_grad():
        module.weight[1] = 0
        module.bias[1] = -10
    target = activity(context, layer, {1})
    run.model.eval()
    inputs = run.inputs()
    expected = run.model(inputs)
    ACTIONS["reinitialize"].apply(context, (target,), REINIT)
    torch.testing.assert_close(run.model(inputs), expected, rtol=0, atol=1e-6)
    run.model.train()
    assert module.weight[1].abs().sum() > 0
    assert module.bias[1] == 0
    incoming = module.weight[1].detach().clone()
    found = unit_readers(context.layers, target)
    units = torch.zeros(module.weight.shape[0], dtype=torch.bool)
    units[1] = True
    (reader,) = found.readers
    columns = context.layers.module(reader.layer_id).weight[:, reader.inputs(units)]
    assert not columns.any()
    run.steps(5)
    assert not torch.equal(module.weight[1], incoming)
    assert context.layers.module(reader.layer_id).weight[:, reader.inputs(units)].any()


def test_recycling_clears_the_moments_of_just_those_weights(loop):
    run = loop("mlp", "adamw")
    context = context_of(run)
    state = run.optimizer.state[run.model[0].weight]
    kept = copy.deepcopy(state)
    ACTIONS["reinitialize"].apply(context, (activity(context, "0", {3}),), REINIT)
    assert not state["exp_avg"][3].any()
    assert not state["exp_avg_sq"][3].any()
    others = torch.arange(16) != 3
    assert torch.equal(state["exp_avg"][others], kept["exp_avg"][others])
    assert state["step"] == kept["step"]
    assert not run.optimizer.state[run.model[2].weight]["exp_avg"][:, 3].any()


def test_recycling_whole_neighbours_leaves_both_trainable(loop):
    run = loop("mlp")
    context = context_of(run)
    ids = (context.layers.ids["0"], context.layers.ids["2"])
    before = [run.model[i].weight.detach().clone() for i in (0, 2, 4)]
    ACTIONS["reinitialize"].apply(context, ids, {**REINIT, "scope": "all"})
    run.steps(3)
    fresh = [run.model[i].weight for i in (0, 2, 4)]
    assert all(not torch.equal(a, b) for a, b in zip(before, fresh, strict=True))
    assert all(weight.any(dim=1).all() for weight in fresh)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("residual", "stem"), ("residual", "head"), ("shared", "cell"), ("language", "lstm")],
)
def test_units_whose_readers_are_not_known_exactly_are_not_recycled(loop, name, layer):
    context = context_of(loop(name), steps=1)
    assert not ACTIONS["reinitialize"].applies_to(context.layers, context.layers.ids[layer])


def test_recycling_needs_a_measurement_and_something_dormant(loop):
    context = context_of(loop("mlp"))
    with pytest.raises(Refusal, match="not measured"):
        ACTIONS["reinitialize"].apply(context, (0,), REINIT)
    activity(context, "0", set())
    with pytest.raises(Refusal, match="dormant"):
        ACTIONS["reinitialize"].apply(context, (0,), REINIT)


@pytest.mark.parametrize(
    ("kind", "dormant", "scale", "recycled"),
    [
        ("mlp", {3}, 1.0, {3}),
        ("mlp", set(), 1.0, set(range(16))),
        ("mlp", {3}, 100.0, set(range(16))),
        ("conv", set(), 1.0, None),
        ("conv", {1}, 1.0, {1}),
        ("conv", {1}, 100.0, None),
    ],
)
def test_recycling_takes_what_is_dormant_and_all_if_needed(loop, kind, dormant, scale, recycled):
    run = loop(kind)
    context = context_of(run)
    module = run.model.get_submodule("0")
    with torch.no_grad():
        module.weight.mul_(scale)
        # A norm that counts biases would not tell large weights from closed units.
        module.bias.fill_(-50.0)
    layer = activity(context, "0", dormant)
    before = module.weight.detach().clone()
    needed = {"threshold": 0.025, "scope": "as_needed", "too_large": 6.0}
    ACTIONS["reinitialize"].apply(context, (layer,), needed)
    changed = (module.weight != before).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    assert set(changed) == (set(range(len(before))) if recycled is None else recycled)


def test_dormancy_is_relative_to_the_layer():
    assert dormant_units(torch.tensor([1.0, 0.02, 1.0]), 0.025).tolist() == [False, False, False]
    assert dormant_units(torch.tensor([1.0, 0.01, 1.0]), 0.025).tolist() == [False, True, False]
    assert dormant_units(torch.zeros(3), 0.025).all()


def test_changing_an_activation_swaps_a_plain_module(loop):
    run = loop("mlp")
    context = context_of(run)
    ACTIONS["change_activation"].apply(context, (0,), {"to": "leaky_relu"})
    assert type(run.model[1]) is nn.LeakyReLU
    assert context.layers.activation(0).name == "leaky_relu"
    with pytest.raises(Refusal, match="already"):
        ACTIONS["change_activation"].apply(context, (1,), {"to": "leaky_relu"})
    run.steps(1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@settings(max_examples=15, deadline=None)
@given(factor=st.floats(1e-3, 1e2))
def test_a_layer_target_scales_that_layers_update_and_no_other(loop, optimizer, factor):
    twin = loop("mlp", optimizer)
    context_of(twin)
    run = loop("mlp", optimizer)
    context = context_of(run)
    before = [p.detach().clone() for p in run.model.parameters()]
    ACTIONS["scale_learning_rate"].apply(context, (context.layers.ids["2"],), {"factor": factor})
    inputs = run.inputs()
    run.step(inputs)
    twin.step(inputs)
    pairs = zip(before, run.model.parameters(), twin.model.parameters(), strict=True)
    for index, (old, scaled, plain) in enumerate(pairs):
        if index in (2, 3):
            torch.testing.assert_close(scaled, old + factor * (plain - old), rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(scaled, plain)


@pytest.mark.parametrize(
    "build",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    ],
)
def test_schedulers_keep_a_scaled_rate(loop, build):
    rates = []
    for factor in (1.0, 0.25):
        run = loop("mlp")
        scheduler = build(run.optimizer)
        context = context_of(run, steps=1, scheduler=scheduler)
        scheduler.step()
        ACTIONS["scale_learning_rate"].apply(context, (), {"factor": factor})
        for _ in range(3):
            run.step()
            scheduler.step()
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates[1] == pytest.approx(0.25 * rates[0], rel=0.02)


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(1e-3, 1), size=st.floats(1e-3, 1e4), seed=st.integers(0, 99))
def test_adaptive_clipping_bounds_each_unit_and_leaves_short_gradients_alone(ratio, size, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.randn(5, 7, generator=generator))
    weight.grad = size * torch.randn(5, 7, generator=generator)
    gradient = weight.grad.clone()
    clip_adaptively([weight], ratio)
    limit = ratio * weight.detach().norm(dim=1)
    lengths = weight.grad.norm(dim=1)
    assert (lengths <= limit * (1 + 1e-4)).all()
    short = gradient.norm(dim=1) < limit
    assert torch.equal(weight.grad[short], gradient[short])


def test_restore_returns_to_the_good_state_with_a_lower_rate(loop):
    run = loop("mlp", "adamw")
    context = context_of(run)
    with pytest.raises(Refusal, match="snapshot"):
        ACTIONS["restore"].apply(context, (), {"learning_rate_factor": 0.5})
    context.good = RunSnapshot(context.run, 4)
    weights = [p.detach().clone() for p in run.model.parameters()]
    for group in run.optimizer.param_groups:
        group["lr"] *= 100
    run.steps(5)
    ACTIONS["restore"].apply(context, (), {"learning_rate_factor": 0.5})
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-2)
    assert all(map(torch.equal, weights, run.model.parameters()))
    assert state_bytes(context.run) == context.good.nbytes
