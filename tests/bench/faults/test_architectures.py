"""Networks have the layers and the first weights that they should, and healthy runs learn."""

import math

import pytest
import torch

from tamiyo.bench.faults import ARCHITECTURES, DATA_SOURCES, healthy_cells
from tamiyo.bench.faults.architectures import Network, weighted_layers
from tamiyo.bench.faults.fault import hidden_layers, middle_layer


def network(architecture, source, classes=10):
    shape = (math.prod(source.shape),) if architecture.flat else source.shape
    return Network(shape, classes, architecture.widths, architecture.activation)


PAIRS = [(cell.architecture, cell.data) for cell in healthy_cells()]


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_outputs_and_gradients_reach_everything(name, data):
    architecture, source = ARCHITECTURES[name], DATA_SOURCES[data]
    torch.manual_seed(0)
    plan = network(architecture, source)
    model = architecture.build(plan)
    outputs = model(torch.randn(32, *plan.shape))
    assert outputs.shape == (32, 10)
    outputs.square().mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in model.parameters())


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_first_weights_are_those_of_he(name, data):
    architecture, source = ARCHITECTURES[name], DATA_SOURCES[data]
    torch.manual_seed(0)
    model = architecture.build(network(architecture, source))
    for layer in weighted_layers(model):
        weight = model.get_submodule(layer).weight
        expected = math.sqrt(2 / weight[0].numel())
        # Four standard errors of a standard deviation.
        assert float(weight.detach().std()) == pytest.approx(
            expected, rel=4 / math.sqrt(2 * weight.numel())
        )
        assert not model.get_submodule(layer).bias.any()


def test_the_output_comes_last_and_is_no_hidden_layer():
    for name, data in PAIRS:
        architecture, source = ARCHITECTURES[name], DATA_SOURCES[data]
        model = architecture.build(network(architecture, source, classes=3))
        hidden = hidden_layers(model)
        assert model.get_submodule(weighted_layers(model)[-1]).weight.shape[0] == 3
        assert middle_layer(model)[0] in hidden
        assert weighted_layers(model) == [*hidden, "output"]


def test_a_seed_gives_the_same_weights():
    architecture, source = ARCHITECTURES["lenet"], DATA_SOURCES["digits"]
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(architecture.build(network(architecture, source)))
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_there_are_the_six_architectures_and_twenty_pairs():
    assert set(ARCHITECTURES) >= {
        "mlp_64_64",
        "mlp_10x5",
        "mlp_20",
        "residual_mlp",
        "lenet",
        "cnn_1d",
    }
    assert len(PAIRS) == len(set(PAIRS)) == 20
