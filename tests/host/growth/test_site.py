"""A site says what new units would do to the loss, to first order, wherever they may be added."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from growing import BUILDERS, Growing, appended
from tamiyo.host.actions import Refusal
from tamiyo.host.growth.chains import growth_site
from tamiyo.host.growth.site import has_kink, slopes_at_zero
from tamiyo.host.units import unit_chain


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_of_units_and_of_layers_are_the_same_numbers(name):
    site = Growing(name).site
    flat = torch.randn(3, site.incoming_size)
    weight = site.incoming(flat)
    assert weight.shape[site.axis] == 3
    assert torch.equal(weight.movedim(site.axis, 0).flatten(1), flat)
    flat = torch.randn(3, sum(site.outgoing_sizes))
    parts = site.outgoing(flat)
    back = [outlet.flatten(part) for outlet, part in zip(site.outlets, parts, strict=True)]
    assert torch.equal(torch.cat(back, dim=1), flat)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Identity])
@settings(max_examples=5)
@given(seed=st.integers(0, 99))
def test_the_effect_is_the_first_order_change_of_the_loss(name, activation, seed):
    growing = Growing(name, activation, seed)
    incoming = torch.randn(2, growing.site.incoming_size, dtype=torch.float64)
    outgoing = torch.randn(2, sum(growing.site.outgoing_sizes), dtype=torch.float64)
    passes, norm = growing.recorded()
    expected = growing.site.effect(passes, incoming, outgoing) * norm
    share = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = growing.loss(appended(growing, incoming, share * outgoing))
    (change,) = torch.autograd.grad(loss, share)
    torch.testing.assert_close(change, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "kinked"),
    [
        (nn.ReLU(), True),
        (nn.ReLU6(), True),
        (nn.LeakyReLU(), True),
        (nn.PReLU(), True),
        (nn.SELU(), True),
        (nn.ELU(), False),
        (nn.GELU(), False),
        (nn.SiLU(), False),
        (nn.Mish(), False),
        (nn.Tanh(), False),
        (nn.Hardtanh(), False),
        (nn.Hardswish(), False),
        (nn.Softsign(), False),
        (nn.Identity(), False),
    ],
)
def test_slopes_show_kinks(module, kinked):
    slopes = slopes_at_zero(module)
    assert slopes is not None
    assert has_kink(*slopes) is kinked


@pytest.mark.parametrize("module", [nn.Sigmoid(), nn.Softplus(), nn.Hardsigmoid(), nn.Tanhshrink()])
def test_activations_that_silent_units_would_not_survive_have_no_slopes(module):
    assert slopes_at_zero(module) is None


class Written(nn.Module):
    """What a user's own forward pass may do with units."""

    def __init__(self, way):
        super().__init__()
        self.first, self.last, self.way = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 3, 1), way

    def forward(self, x):
        return self.last(self.way(self.first(x)))


@pytest.mark.parametrize(
    ("way", "kinked"),
    [
        (lambda x: x, False),
        (functional.relu, True),
        (functional.relu6, True),
        (functional.gelu, False),
        (functional.leaky_relu, True),
        (lambda x: functional.dropout(torch.tanh(x), 0.2), False),
    ],
)
def test_what_a_users_own_code_calls_is_known_by_its_operators(way, kinked):
    assert site_of(Written(way)).kinked is kinked


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (torch.sigmoid, "keep zero"),
        (functional.softplus, "keep zero"),
        (lambda x: functional.relu(torch.tanh(x)), "two activations"),
        (lambda x: functional.max_pool1d(functional.relu(x), 2), "not known"),
    ],
)
def test_what_silent_units_would_not_survive_is_refused(way, reason):
    with pytest.raises(Refusal, match=reason):
        site_of(Written(way))


def test_a_batch_normalisation_is_seen_as_it_would_be_in_training():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 3, 1))
    site = site_of(model)
    assert site.normalized
    made = 5 + 3 * torch.randn(6, 4, 7)
    (outlet,) = site.outlets
    torch.testing.assert_close(outlet.see(made), model[1:3](made))


def test_a_module_that_cannot_be_run_on_new_units_alone_is_refused():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.MaxPool1d(2), nn.Threshold(0, 1), nn.Conv1d(4, 3, 1)
    )
    with pytest.raises(Refusal, match="Threshold"):
        site_of(model)


def site_of(model):
    layers = Growing.layers_of(model, torch.randn(3, 2, 9))
    return growth_site(layers, unit_chain(layers, 0))
