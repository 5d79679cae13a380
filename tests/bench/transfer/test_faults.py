"""Faults do what they say, where they say, and their cures are those of Training-v0."""

import math

import pytest
import torch
from torch import nn

from tamiyo.bench.transfer.faults import FAULTS, fault_named, linear_layers
from tamiyo.bench.transfer.hosts import LiveHost
from tamiyo.envs.training.faults import CURES, WHOLE_RUN

DEEP = LiveHost("digits", 8, 3, "relu")


def struck(name, host=DEEP, layer=1):
    """Model and optimiser after the fault."""
    torch.manual_seed(0)
    model = host.build()
    optimizer = host.optimizer(model)
    fault = fault_named(name).make(host, 5, layer)
    assert fault.step == 5
    fault.strike(model, optimizer)
    return model, optimizer


@pytest.mark.parametrize(
    ("name", "factor"), [("learning rate too high", 30), ("learning rate too low", 1e-3)]
)
def test_learning_rates_are_multiplied(name, factor):
    _model, optimizer = struck(name, layer=WHOLE_RUN)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(factor * DEEP.learning_rate)


def test_dying_units_never_open():
    model, _optimizer = struck("dying ReLU")
    hidden = model[:4](DEEP.task(1).train[0])
    assert (hidden == 0).all()


def test_a_zero_layer_lets_nothing_through_and_gets_no_gradient():
    model, _optimizer = struck("zero layer")
    inputs, labels = DEEP.task(1).train
    nn.functional.cross_entropy(model(inputs), labels).backward()
    assert (model[:3](inputs) == 0).all()
    assert (model.hidden2.weight.grad == 0).all()


def test_a_saturated_layer_has_no_slope():
    host = LiveHost("digits", 8, 2, "tanh")
    model, _optimizer = struck("saturated layer", host, 0)
    hidden = model[:2](host.task(1).train[0])
    assert (hidden.abs() > 0.99).float().mean() > 0.8


def test_one_weight_is_not_a_number():
    model, _optimizer = struck("NaN weight", layer=3)
    assert [name for name, p in model.named_parameters() if p.isnan().any()] == ["output.weight"]
    assert model.output.weight.isnan().sum() == 1


def test_a_bottleneck_has_one_unit_and_is_trained():
    model, optimizer = struck("bottleneck")
    assert (model.hidden2.out_features, model.hidden3.in_features) == (1, 1)
    assert [*map(id, optimizer.param_groups[0]["params"])] == [*map(id, model.parameters())]
    inputs, labels = DEEP.task(1).train
    before = model.hidden2.weight.clone()
    nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    assert (model.hidden2.weight != before).all()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_place_is_a_layer_that_can_be_struck(fault):
    hosts = [
        LiveHost(data, 8, depth, activation, family, norm)
        for data in ("digits", "spirals", "wine")
        for depth in (1, 3)
        for activation in ("relu", "tanh")
        for family in (("mlp", "cnn") if data == "digits" else ("mlp",))
        for norm in (False, True)
    ]
    able = [host for host in hosts if fault.places(host)]
    assert able
    for host in able:
        for layer in fault.places(host):
            model = host.build()
            assert layer == WHOLE_RUN or layer < len(linear_layers(model))
            fault.make(host, 0, layer).strike(model, host.optimizer(model))
            outputs = model(host.task(1).held_out[0])
            broken = not math.isfinite(outputs.sum().item())
            assert broken == (fault.name == "NaN weight")


def test_cures_are_those_of_the_simulated_faults():
    for fault in FAULTS:
        assert fault.cures
        assert fault.cures == CURES[fault.kind]


def test_names_are_unique_and_others_refused():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    with pytest.raises(ValueError, match=r"unknown fault 'rust'.*dying ReLU"):
        fault_named("rust")
