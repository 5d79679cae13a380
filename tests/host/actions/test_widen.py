"""Widening preserves the function, goes on training and is undone bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adaptable import Training, trainings
from tamiyo.host import RunSnapshot, TopologyRecorder, TrainingRun
from tamiyo.host.actions import Context, Refusal
from tamiyo.host.actions.widen import Widen
from tamiyo.host.units import unit_share

WIDEN = Widen()


def sites(training):
    return [i for i in range(len(training.layers)) if WIDEN.applies_to(training.layers, i)]


def parameters(units=0.5, initialization="zero_outgoing", steps=2.0):
    return {"units": units, "initialization": initialization, "gradient_steps": steps}


@settings(max_examples=40)
@given(
    training=trainings,
    data=st.data(),
    units=st.sampled_from([0.01, 0.5, 1.0, 3.0]),
    initialization=st.sampled_from(["zero_outgoing", "net2net"]),
)
def test_the_function_stays_and_undo_is_exact(training, data, units, initialization):
    target = data.draw(st.lists(st.sampled_from(sites(training)), min_size=1, unique=True))
    before, snapshot = training.outputs(), RunSnapshot(training.context.run, 3)
    sizes = {i: training.layers.module(i).weight.shape[0] for i in target}
    random_state = torch.get_rng_state()
    undo = WIDEN.apply(training.context, target, parameters(units, initialization))
    assert torch.equal(random_state, torch.get_rng_state())
    for i, size in sizes.items():
        module = training.layers.module(i)
        assert module.weight.shape[0] == size + unit_share(units, size)
    for expected, got in zip(before, training.outputs(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    undo()
    assert snapshot.verify()
    assert all(training.layers.module(i).weight.shape[0] == size for i, size in sizes.items())


@settings(max_examples=25)
@given(training=trainings, initialization=st.sampled_from(["zero_outgoing", "net2net"]))
def test_the_loss_goes_on_falling_and_new_units_are_trained(training, initialization):
    target = sites(training)
    sizes = [training.layers.module(i).weight.shape[0] for i in target]
    before = functional.mse_loss(training.outputs()[0], training.target).item()
    WIDEN.apply(training.context, target, parameters(1.0, initialization))
    started = [training.layers.module(i).weight.detach().clone() for i in target]
    losses = training.steps(40)
    assert losses[0] == pytest.approx(before, rel=1e-4)
    assert losses[-1] < before
    for i, size, weight in zip(target, sizes, started, strict=True):
        grown = training.layers.module(i).weight
        assert not torch.equal(grown[size:], weight[size:]) or not grown.grad[size:].any()
    trained = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in training.model.parameters()}
    assert set(training.optimizer.state) == set(training.model.parameters())


@settings(max_examples=15)
@given(training=trainings)
def test_zero_outgoing_leaves_the_other_gradients_as_they_were(training):
    (target, *_) = sites(training)
    module = training.layers.module(target)
    size = module.weight.shape[0]

    def gradient():
        functional.mse_loss(training.model(training.inputs), training.target).backward()
        gradient = training.layers.module(target).weight.grad[:size].clone()
        training.optimizer.zero_grad()
        return gradient

    training.optimizer.zero_grad()
    expected = gradient()
    WIDEN.apply(training.context, [target], parameters(2.0))
    torch.testing.assert_close(gradient(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_zero_outgoing_is_exact_on_small_models(kind):
    training = Training(kind, [6, 4], True, nn.ReLU, "adamw", 0)
    before = training.outputs()
    WIDEN.apply(training.context, sites(training), parameters(3.0))
    assert all(map(torch.equal, before, training.outputs()))


@settings(max_examples=10)
@given(training=trainings, steps=st.integers(1, 4))
def test_after_steps_undo_and_a_snapshot_bring_everything_back(training, steps):
    snapshot = RunSnapshot(training.context.run, 3)
    undo = WIDEN.apply(training.context, sites(training), parameters())
    training.steps(steps)
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    owners = training.layers.ownership.owner
    assert set(owners) == {id(p) for p in training.model.parameters()}
    training.steps(1)


def test_ownership_activity_and_shapes_follow():
    training = Training("cnn", [4, 6], True, nn.ReLU, "adamw", 0)
    layers, target = training.layers, training.layers.ids["0"]
    training.context.activity[target] = torch.ones(4)
    WIDEN.apply(training.context, [target], parameters(2.0))
    assert target not in training.context.activity
    assert [p.shape[0] for i in (0, 1) for p in layers.parameters(i)] == [6, 6, 6]
    assert layers.flow.shapes["0"][1:] == layers.flow.shapes["1"][1:] == (6, 6, 6)
    assert training.model[0].out_channels == training.model[1].num_features == 6
    assert training.model[3].in_channels == 6
    assert layers.parameters(0)[0] is training.model[0].weight


def context_of(model, *inputs, optimizer=None):
    recorder = TopologyRecorder(model)
    recorder.attach()
    model(*inputs).square().sum().backward()
    recorder.detach()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1)
    return Context(TrainingRun(model, optimizer), recorder.layers())


def applicable(model, *inputs):
    context = context_of(model, *inputs)
    ids = range(len(context.layers))
    return {context.layers.names[i] for i in ids if WIDEN.applies_to(context.layers, i)}


class Written(nn.Module):
    """Reshapes with sizes that are written out, or looks at the number of units otherwise."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(16, 2)
        self.scale = torch.ones(4, 1, 1)

    def forward(self, x):
        x = self.conv(x)
        x = x * self.scale if self.way == "scale" else x
        return self.head(x.view(-1, 16) if self.way == "view" else torch.flatten(x, 1))


@pytest.mark.parametrize("way", ["view", "flatten", "scale"])
def test_code_that_may_have_written_sizes_out_is_left_alone(way):
    assert applicable(Written(way), torch.randn(2, 1, 4, 4)) == set()


def test_layers_whose_units_mix_or_meet_others_are_refused():
    norm = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    group = nn.Sequential(nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 2))
    per_unit = nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 2))
    unflatten = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 2, 1))
    grouped = nn.Sequential(nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1, groups=2), nn.Conv1d(4, 4, 1))
    assert applicable(norm, torch.randn(2, 4)) == set()
    assert applicable(group, torch.randn(2, 1, 4)) == set()
    assert applicable(per_unit, torch.randn(2, 4)) == set()
    assert applicable(unflatten, torch.randn(2, 4)) == set()
    assert applicable(grouped, torch.randn(2, 4, 3)) == set()


def test_only_the_feed_forward_block_of_a_transformer_is_widened():
    model = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    assert applicable(model, torch.randn(2, 3, 8)) == {"linear1"}
    hooked = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    hooked[2].register_forward_pre_hook(lambda module, args: None)
    assert applicable(hooked, torch.randn(2, 4)) == set()


def small():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def test_a_refusal_leaves_no_trace():
    model = small()
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    context = context_of(model, torch.randn(2, 4), optimizer=optimizer)
    snapshot = RunSnapshot(context.run, 0)
    with pytest.raises(Refusal, match="another optimiser"):
        WIDEN.apply(context, [0], parameters())
    assert snapshot.verify()
    assert (model[0].out_features, model[2].in_features) == (6, 6)
    assert len(context.layers.parameters(0)[0]) == 6


def test_frozen_readers_are_not_given_inputs_that_can_never_be_trained():
    model = small()
    model[2].requires_grad_(requires_grad=False)
    assert applicable(model, torch.randn(2, 4)) == set()


def test_a_channels_last_model_stays_one():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1))
    model = model.to(memory_format=torch.channels_last)
    context = context_of(model, torch.randn(2, 2, 5, 5))
    WIDEN.apply(context, [0], parameters(2.0))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.stride() != model[0].weight.contiguous().stride()
