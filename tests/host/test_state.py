"""Adaptations survive saving and loading, or it is said why not."""

import copy
import io
import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adaptable import Training, adapt, trainings
from tamiyo.contracts import AdaptationType
from tamiyo.host import RunSnapshot, StructureError, TopologyRecorder, TrainingRun, rebuild
from tamiyo.host.actions import ACTIONS, Context
from tamiyo.host.state import capture, restore, resume
from tamiyo.host.structure import original, table

SEED = {"units": 3.0, "training_steps": 3, "blending_steps": 5, "holding_steps": 3}


def make(kind="mlp", optimizer="adamw", widths=(4, 6), seed=0):
    training = Training(kind, list(widths), False, nn.ReLU, optimizer, seed)
    original(training.model)
    return training


def apply(training, kind, target, **parameters):
    action = ACTIONS[AdaptationType(kind)]
    complete = {name: rule.check(name, parameters.get(name)) for name, rule in action.rules.items()}
    return action.apply(training.context, target, complete)


def saved(training):
    """What a checkpoint file gives back."""
    file = io.BytesIO()
    state = capture(training.context.run, training.context)
    assert json.loads(json.dumps(state)) == state
    torch.save((state, training.model.state_dict(), training.optimizer.state_dict()), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(training, checkpoint, fresh=None):
    """A new process, as far as the run can tell: other objects, other values."""
    state, weights, moments = checkpoint
    model, optimizer = fresh or training.fresh()
    run = TrainingRun(model, optimizer)
    layers = restore(run, state)
    twin = copy.copy(training)
    twin.model, twin.optimizer, twin.layers = model, optimizer, layers
    twin.context = Context(run, layers)
    resume(twin.context, state)
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return twin


def assert_same(one, other, steps=12):
    assert one.steps(steps) == other.steps(steps)
    first, second = one.model.state_dict(), other.model.state_dict()
    assert list(first) == list(second)
    assert all(map(torch.equal, first.values(), second.values()))


@settings(max_examples=12)
@given(training=trainings, seed=st.integers(0, 999))
def test_after_any_adaptations_a_resumed_run_goes_on_bit_for_bit(training, seed):
    original(training.model)
    choose = random.Random(seed)  # noqa: S311
    for _ in range(8):
        adapt(training, choose)
        training.steps(1)
    apply(training, "scale_learning_rate", (0,), factor=0.5)
    apply(training, "clip_gradients", (), ratio=0.1)
    training.steps(1)
    checkpoint = saved(training)
    random_state = torch.get_rng_state()
    twin = resumed(training, checkpoint, training.fresh())
    torch.set_rng_state(random_state)
    assert saved(twin)[0] == checkpoint[0]
    assert twin.layers.flow == training.layers.flow
    assert twin.layers.names == training.layers.names
    assert_same(training, twin)
    assert saved(twin)[0] == saved(training)[0]


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("steps", [0, 2, 5, 8, 9, 20])
def test_a_seed_goes_on_at_its_stage(kind, steps):
    training = make(kind)
    apply(training, "add_seed", (0,), **SEED)
    training.steps(steps)
    twin = resumed(training, saved(training))
    (seed,), (other,) = training.context.seed_bed, twin.context.seed_bed
    assert (other.stage, other.alpha) == (seed.stage, seed.alpha)
    assert_same(training, twin, 6)
    assert (other.stage, other.alpha) == (seed.stage, seed.alpha)
    for run in (training, twin):
        apply(run, "remove_seed", (0,), blending_steps=4.0)
    assert_same(training, twin, 6)
    assert type(twin.model[0]) is type(training.model[0]) is ACTED_ON[kind]
    assert seed.stage is other.stage


ACTED_ON = {"mlp": nn.Linear, "cnn": nn.Conv2d}


def test_loading_draws_no_random_numbers():
    training = make()
    apply(training, "add_seed", (0,), **SEED)
    checkpoint, fresh = saved(training), training.fresh()
    before = torch.get_rng_state()
    resumed(training, checkpoint, fresh)
    assert torch.equal(torch.get_rng_state(), before)


def first_layers(layers):
    model = make().fresh()[0][:layers]
    return model, torch.optim.AdamW(model.parameters())


def grouped(sizes):
    model, _ = make().fresh()
    parameters = iter(model.parameters())
    groups = [{"params": [next(parameters) for _ in range(size)]} for size in sizes]
    return model, torch.optim.AdamW(groups)


def with_state():
    training = make()
    training.steps(1)
    return training.model, training.optimizer


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: make(widths=(4, 7)).fresh(), "'2' has tensors"),
        (lambda: first_layers(3), "'3' is missing"),
        (lambda: make(widths=(4, 6, 3)).fresh(), "another module, '5'"),
        (lambda: make("cnn").fresh(), "'0' has class Conv2d, the saved one had Linear"),
        (lambda: grouped([4, 2]), "2 parameter groups, the saved one had 1"),
        (lambda: grouped([4]), "differs in '4.bias'"),
        (with_state, "has a state already"),
    ],
)
def test_another_model_or_optimiser_is_refused_and_stays_as_it_was(build, why):
    training = make()
    apply(training, "widen", (0,), units=2.0)
    apply(training, "add_seed", (2,), **SEED)
    state, *_ = saved(training)
    model, optimizer = build()
    run = TrainingRun(model, optimizer)
    snapshot, before = RunSnapshot(run, 0), table(model)
    with pytest.raises(StructureError, match=why):
        restore(run, state)
    assert snapshot.verify()
    assert table(model) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 99}, "version 99"),
        ({"problem": "the program has removed it"}, "could not be saved: the program has removed"),
    ],
)
def test_a_state_that_cannot_be_loaded_says_why(change, why):
    model, _ = make().fresh()
    with pytest.raises(StructureError, match=why):
        rebuild(model, capture(TrainingRun(*make().fresh()), None) | change)


def test_what_the_program_did_to_the_model_does_not_stop_saving(caplog):
    training = make()
    del training.model[3]
    state = capture(training.context.run, training.context)
    assert "has added or removed the module" in state["problem"]
    assert "cannot be saved" in caplog.text
    training = make()
    training.model[0].weight = nn.Parameter(torch.zeros(4, 5))
    state = capture(training.context.run, training.context)
    assert "exchanged a parameter of '0'" in state["problem"]


def test_a_second_session_on_the_same_model_knows_the_original():
    training = make()
    apply(training, "widen", (0,), units=2.0)
    apply(training, "add_seed", (2,), **SEED)
    training.steps(5)
    training.context.remove_hooks()
    training.context.seed_bed.settle()
    again = capture(training.context.run, None)
    model, _ = training.fresh()
    rebuild(model, again)
    model.load_state_dict(training.model.state_dict())
    assert torch.equal(model(training.inputs), training.model(training.inputs))


def test_a_model_can_go_back_and_forth_between_its_saved_forms():
    training = make("cnn")
    forms = [saved(training)]
    for kind, target, parameters in (
        ("widen", (0,), {"units": 2.0}),
        ("change_activation", (1,), {"to": "gelu"}),
        ("insert_normalization", (0,), {}),
        ("add_seed", (2,), SEED),
    ):
        apply(training, kind, target, **parameters)
        training.steps(2)
        forms.append(saved(training))
    outputs = []
    for state, weights, _ in (*forms, *reversed(forms)):
        rebuild(training.model, state)
        training.model.load_state_dict(weights)
        outputs.append(training.model(training.inputs))
    assert all(map(torch.equal, outputs, reversed(outputs)))
    assert type(training.model[0]) is nn.Conv2d


def test_memory_format_ties_names_and_frozen_parameters_are_kept():
    def build():
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(36, 3)
        ).to(memory_format=torch.channels_last)
        model[4].bias.requires_grad_(requires_grad=False)
        return model, torch.optim.SGD(model.named_parameters(), 0.1)

    training = make("cnn")
    training.recipe = None
    training.model, training.optimizer = build()
    training.inputs, training.target = torch.randn(8, 2, 5, 5), torch.randn(8, 3)
    run = TrainingRun(training.model, training.optimizer)
    recorder = TopologyRecorder(training.model)
    recorder.attach()
    training.steps(1)
    recorder.detach()
    original(training.model)
    training.layers = recorder.layers()
    training.context = Context(run, training.layers)
    apply(training, "widen", (0,), units=3.0)
    apply(training, "add_seed", (2,), **SEED)
    twin = resumed(training, saved(training), build())
    assert twin.model[0].weight.stride() == training.model[0].weight.stride()
    assert not twin.model[4].bias.requires_grad
    names = [group["param_names"] for group in twin.optimizer.param_groups]
    assert names == [group["param_names"] for group in training.optimizer.param_groups]
    assert_same(training, twin)
