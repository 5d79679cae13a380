"""New features correlate with what is left of the error, more than any drawn at random."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from growing import BUILDERS, Growing
from tamiyo.host.growth.correlation import _CANDIDATES, _agreement, correlated
from tamiyo.host.growth.directions import random_directions
from tamiyo.host.growth.site import GrowthSite, Outlet, Pass, Passage


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=4)
@given(seed=st.integers(0, 99))
def test_they_agree_better_with_the_error_than_all_candidates(name, seed):
    growing = Growing(name, nn.ReLU, seed)
    passes, _ = growing.recorded()
    found = correlated(growing.site, passes, 1, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(found.norm(), torch.ones(()).double())
    best, _ = _agreement(growing.site, passes, found)
    generator = torch.Generator().manual_seed(seed)
    drawn = random_directions(growing.site, _CANDIDATES, generator).incoming.double()
    others = [_agreement(growing.site, passes, one[None])[0] for one in drawn]
    # A candidate may be a stationary point itself.
    assert best >= (1 - 1e-9) * max(others)


@pytest.mark.parametrize("count", [2, 5])
def test_there_may_be_more_units_than_directions(count):
    growing = Growing("linear")
    passes, _ = growing.recorded()
    found = correlated(growing.site, passes, count)
    assert found.shape == (count, 5)
    assert len({tuple(row) for row in found.tolist()}) == count


@pytest.mark.parametrize("name", BUILDERS)
def test_the_gradient_of_the_criterion_is_that_of_its_value(name):
    growing = Growing(name, nn.Tanh)
    passes, _ = growing.recorded()
    incoming = torch.randn(1, growing.site.incoming_size).double()
    direction = torch.randn_like(incoming)
    _, uphill = _agreement(growing.site, passes, incoming)
    ahead, behind = (
        _agreement(growing.site, passes, incoming + sign * 1e-6 * direction)[0] for sign in (1, -1)
    )
    slope = (uphill * direction).sum().item()
    assert (ahead - behind) / 2e-6 == pytest.approx(slope, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", BUILDERS)
def test_activity_is_the_mean_square_of_what_readers_see(name):
    growing = Growing(name)
    seen = []
    for outlet in growing.site.outlets:
        outlet.reader.register_forward_hook(lambda _module, args, _output: seen.append(args[0]))
    with torch.no_grad():
        growing.site.layer.bias.zero_()
    passes, _ = growing.recorded()
    weight = growing.site.layer.weight.detach().movedim(growing.site.axis, 0).flatten(1)
    values = torch.cat([units.detach().flatten() for units in seen])
    measured = growing.site.activity(passes, weight)
    torch.testing.assert_close(measured.mean(), values.square().mean())
    assert measured.shape == (len(weight),)


def test_a_feature_that_explains_the_error_exactly_is_found():
    torch.manual_seed(0)
    inputs, hidden = torch.randn(300, 4).double(), torch.tensor([[0.8, -0.6, 0.0, 0.0]]).double()
    target = torch.relu(inputs @ hidden.T)
    site = GrowthSite(
        nn.Linear(4, 2),
        [Outlet(nn.Linear(2, 1), 1, 1, [Passage(torch.relu, activates=True)])],
        True,
    )
    found = correlated(site, [Pass(inputs, [-target])], 1, torch.Generator().manual_seed(0))
    assert (found @ hidden.T).item() > 0.999


def test_units_share_the_error_out_between_them():
    torch.manual_seed(0)
    inputs = torch.randn(400, 4).double()
    hidden = torch.eye(4).double()[:2]
    site = GrowthSite(
        nn.Linear(4, 2),
        [Outlet(nn.Linear(2, 2), 1, 1, [Passage(torch.relu, activates=True)])],
        True,
    )
    gradient = -torch.relu(inputs @ hidden.T)
    found = correlated(site, [Pass(inputs, [gradient])], 2, torch.Generator().manual_seed(1))
    closeness = (found @ hidden.T).amax(dim=0)
    assert (closeness > 0.9).all()
