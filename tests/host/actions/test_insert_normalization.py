"""A gated normalisation changes nothing at birth, learns, and consists of plain torch modules."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adaptable import Training, trainings
from tamiyo.host import RunSnapshot
from tamiyo.host.actions.insert_normalization import InsertNormalization

INSERT = InsertNormalization()


def sites(training):
    return [i for i in range(len(training.layers)) if INSERT.applies_to(training.layers, i)]


def gradients(training):
    training.optimizer.zero_grad()
    functional.mse_loss(training.model(training.inputs), training.target).backward()
    return {name: p.grad for name, p in training.model.named_parameters()}


@settings(max_examples=30)
@given(training=trainings, data=st.data())
def test_outputs_and_gradients_stay_exactly_and_undo_is_exact(training, data):
    if not (places := sites(training)):
        return
    target = data.draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    before, expected = training.outputs(), gradients(training)
    snapshot = RunSnapshot(training.context.run, 3)
    undo = INSERT.apply(training.context, target, {})
    assert all(map(torch.equal, before, training.outputs()))
    got = gradients(training)
    assert all(torch.equal(got[name], gradient) for name, gradient in expected.items())
    assert sum(name.endswith("gate") for name in got) == len(target)
    undo()
    assert snapshot.verify()


@settings(max_examples=20)
@given(training=trainings)
def test_the_loss_goes_on_falling_and_the_gate_opens(training):
    if not (places := sites(training)):
        return
    before = functional.mse_loss(training.outputs()[0], training.target).item()
    INSERT.apply(training.context, places, {})
    losses = training.steps(40)
    assert losses[0] == pytest.approx(before, rel=1e-5)
    assert losses[-1] < before
    gates = [p for name, p in training.model.named_parameters() if name.endswith("gate")]
    assert len(gates) == len(places)
    # Behind a layer that is dead as a whole no gradient ever arrives.
    assert all(gate.item() != 0 or gate.grad.item() == 0 for gate in gates)


@settings(max_examples=10)
@given(training=trainings, steps=st.integers(1, 3))
def test_after_steps_undo_and_a_snapshot_bring_everything_back(training, steps):
    snapshot = RunSnapshot(training.context.run, 3)
    undo = INSERT.apply(training.context, sites(training), {})
    training.steps(steps)
    undo()
    snapshot.restore(random_state=False)
    assert snapshot.verify(random_state=False)
    owners = training.layers.ownership.owner
    assert set(owners) == {id(p) for p in training.model.parameters()}
    training.steps(1)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_result_is_plain_torch(kind):
    training = Training(kind, [4, 6], False, nn.ReLU, "adamw", 1)
    names = set(training.model.state_dict())
    target = sites(training)
    INSERT.apply(training.context, target, {})
    training.steps(5)
    model = training.model.eval()
    assert names < set(model.state_dict())
    assert all(type(m).__module__.startswith("torch.") for m in model.modules())
    expected = model(training.inputs)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301
        torch.load(saved, weights_only=False),
        torch.compile(model, backend="eager"),
    ):
        assert torch.equal(twin(training.inputs), expected)
    other = Training(kind, [4, 6], False, nn.ReLU, "adamw", 2)
    INSERT.apply(other.context, target, {})
    other.model.load_state_dict(model.state_dict())
    assert torch.equal(other.model.eval()(training.inputs), expected)


def test_the_dtype_under_autocast_stays():
    training = Training("mlp", [4, 6], False, nn.ReLU, "adamw", 1)
    before = training.model[0].weight
    with torch.autocast("cpu", torch.bfloat16):
        expected = training.model[0](training.inputs)
        INSERT.apply(training.context, [0], {})
        got = training.model[0](training.inputs)
    assert got.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(got, expected)
    assert training.model[0].weight is before
    assert training.model[0].out_features == 4


def test_outputs_normalised_layers_and_changed_ones_are_refused():
    assert sites(Training("mlp", [4, 6], True, nn.ReLU, "sgd", 0)) == []
    training = Training("mlp", [4, 6], False, nn.ReLU, "sgd", 0)
    names = [training.layers.names[i] for i in sites(training)]
    assert names == ["0", "2"]
    INSERT.apply(training.context, sites(training), {})
    assert sites(training) == []
