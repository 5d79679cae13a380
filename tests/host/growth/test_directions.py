"""New units begin where their gradient is largest, or where the loss falls fastest."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from growing import BUILDERS, Growing, appended
from tamiyo.host.growth.directions import (
    _adjoint,
    _gradient,
    largest_gradient,
    random_directions,
    rectified,
)
from tamiyo.host.growth.site import GrowthSite, Outlet, Pass


def linear_site(inputs, units, outputs):
    layer, reader = nn.Linear(inputs, units), nn.Linear(units, outputs)
    return GrowthSite(layer, [Outlet(reader, 1, 1, [])], kinked=False)


sizes = st.integers(1, 12)


@settings(max_examples=50)
@given(inputs=sizes, outputs=sizes, rows=st.integers(1, 20), data=st.data())
def test_directions_are_the_singular_vectors_of_the_cross_covariance(inputs, outputs, rows, data):
    count = data.draw(st.integers(1, min(inputs, outputs)))
    torch.manual_seed(rows)
    read, gradient = torch.randn(rows, inputs).double(), torch.randn(rows, outputs).double()
    site = linear_site(inputs, 3, outputs)
    values, found = largest_gradient(site, [Pass(read, [gradient])], count)
    covariance = (gradient.T @ read).numpy()
    expected = np.linalg.svd(covariance, compute_uv=False)[:count]
    np.testing.assert_allclose(values, expected, atol=1e-9)
    images = covariance.T @ found.outgoing.numpy().T
    np.testing.assert_allclose(np.linalg.norm(images, axis=0), expected, atol=1e-9)
    np.testing.assert_allclose(-images.T, found.incoming * values[:, None], atol=1e-9)
    for side in found:
        torch.testing.assert_close(side @ side.T, torch.eye(count).double())


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=5)
@given(seed=st.integers(0, 99))
def test_the_map_to_the_gradient_and_its_adjoint_belong_together(name, seed):
    growing = Growing(name, nn.Tanh, seed)
    passes, _ = growing.recorded()
    incoming = torch.randn(3, growing.site.incoming_size, dtype=torch.float64)
    outgoing = torch.randn(3, sum(growing.site.outgoing_sizes), dtype=torch.float64)
    forward = (_gradient(growing.site, passes, outgoing) * incoming).sum()
    backward = (_adjoint(growing.site, passes, incoming) * outgoing).sum()
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=5)
@given(seed=st.integers(0, 99))
def test_no_other_unit_of_that_norm_gets_a_larger_gradient_in_the_grown_network(name, seed):
    growing = Growing(name, nn.Tanh, seed)
    passes, norm = growing.recorded()
    values, found = largest_gradient(growing.site, passes, 1)

    def gradient_of(outgoing):
        silent = torch.zeros(1, growing.site.incoming_size).double().requires_grad_()
        loss = growing.loss(appended(growing, silent, outgoing))
        return torch.autograd.grad(loss, silent)[0]

    largest = gradient_of(found.outgoing)
    torch.testing.assert_close(largest.norm(), values[0] * norm)
    torch.testing.assert_close(largest, -found.incoming * largest.norm(), rtol=1e-4, atol=1e-8)
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        other = random_directions(growing.site, 1, generator).outgoing.double()
        assert gradient_of(other).norm() <= largest.norm() * (1 + 1e-9)


def test_a_site_with_many_directions_is_searched_well_enough():
    torch.manual_seed(0)
    read, gradient = torch.randn(200, 150).double(), torch.randn(200, 120).double()
    site = linear_site(150, 3, 120)
    values, found = largest_gradient(site, [Pass(read, [gradient])], 8)
    expected = torch.linalg.svdvals(gradient.T @ read)[:8]
    assert (values > 0.97 * expected).all()
    assert values.square().sum() > 0.98 * expected.square().sum()
    torch.testing.assert_close(found.outgoing @ found.outgoing.T, torch.eye(8).double())


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=5)
@given(seed=st.integers(0, 99), count=st.integers(1, 3))
def test_rectified_directions_let_the_loss_fall_faster(name, seed, count):
    growing = Growing(name, nn.ReLU, seed)
    passes, norm = growing.recorded()
    _, start = largest_gradient(growing.site, passes, count)
    better = rectified(growing.site, passes, start)
    decreases = [-growing.site.effect(passes, *found) for found in (start, better)]
    flipped = -growing.site.effect(passes, -start.incoming, -start.outgoing)
    assert decreases[1] >= max(decreases[0], flipped) - 1e-9
    torch.testing.assert_close(better.incoming.norm(dim=1), torch.ones(count).double())
    torch.testing.assert_close(better.outgoing @ better.outgoing.T, torch.eye(count).double())
    if decreases[1] > 1e-6:
        tiny = 1e-4 / norm
        grown = growing.loss(appended(growing, tiny * better.incoming, better.outgoing))
        assert grown < growing.loss()


def test_a_unit_that_no_input_opens_keeps_its_direction():
    site = GrowthSite(nn.Linear(2, 3), [Outlet(nn.Linear(3, 2), 1, 1, [])], kinked=True)
    passes = [Pass(torch.zeros(4, 2), [torch.ones(4, 2)])]
    start = random_directions(site, 1)
    found = rectified(site, passes, start)
    assert torch.equal(found.incoming.abs(), start.incoming.abs())
    assert torch.isfinite(found.outgoing).all()
