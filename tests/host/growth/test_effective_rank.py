"""The effective rank is that of the singular values, and is NaN where too little was seen."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from growing import Growing
from tamiyo.host.growth import effective_rank as module
from tamiyo.host.growth.effective_rank import (
    RankRecording,
    effective_rank,
    unit_use,
    units_wanted,
)


@given(
    rows=st.integers(1, 40),
    units=st.integers(1, 24),
    rank=st.integers(0, 24),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    noise=st.sampled_from([0.0, 1e-6, 0.1]),
    seed=st.integers(0, 99),
)
def test_it_counts_the_singular_values_that_numpy_finds(rows, units, rank, scale, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(rows, rank, generator=generator), torch.randn(rank, units)
    activations = scale * (left @ right + noise * torch.randn(rows, units, generator=generator))
    values = np.linalg.svd(activations.double().numpy() / math.sqrt(rows), compute_uv=False)
    assume(not (np.abs(values / 0.01 - 1) < 1e-3).any())
    assert effective_rank(activations) == (values > 0.01).sum()


@given(units=st.integers(1, 10), copies=st.integers(0, 5), dead=st.integers(0, 5))
def test_units_that_repeat_others_or_are_dead_do_not_count(units, copies, dead):
    torch.manual_seed(units)
    different = torch.randn(200, units)
    repeated = different[:, torch.randint(units, (copies,))] * 2
    every = torch.cat([different, repeated, torch.zeros(200, dead)], dim=1)
    assert effective_rank(every) == effective_rank(different) == units


@pytest.mark.parametrize(
    ("use", "first", "units", "wanted"),
    [(1.0, 1.0, 100, 3), (0.97, 1.0, 100, 0), (0.9, 0.5, 10, 4), (0.2, 1.0, 10, 0)],
)
def test_the_rule_compares_with_the_beginning(use, first, units, wanted):
    assert units_wanted(use, first, units) == wanted


def test_the_rule_adds_nothing_where_nothing_is_known():
    assert units_wanted(math.nan, 1.0, 10) == units_wanted(1.0, math.nan, 10) == 0


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(functional.relu(self.first(x)))


def share(activations):
    return effective_rank(activations) / activations.shape[1]


@pytest.mark.parametrize(
    "build",
    [
        Functional,
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2)
        ),
    ],
)
def test_units_are_seen_behind_their_activation(build):
    torch.manual_seed(0)
    model, inputs = build(), torch.randn(24, 4)
    first = model.first if isinstance(model, Functional) else model[0]
    with torch.no_grad():
        first.bias[:2] = -100.0
        if not isinstance(model, Functional):
            model[1].bias[:2] = -100.0
    found = unit_use(model, inputs)
    outputs = model(inputs)
    assert sorted(found.values()) == sorted([4 / 6, share(outputs.detach())])


def test_channels_are_units_and_positions_are_rows():
    growing = Growing("convolution", nn.Tanh)
    found = unit_use(growing.model, growing.inputs)
    with torch.no_grad():
        outputs = growing.model[:2](growing.inputs)
    assert found["0"] == share(outputs.movedim(1, -1).flatten(0, -2))


def test_fewer_rows_than_units_show_nothing():
    model = nn.Linear(3, 8)
    assert math.isnan(unit_use(model, torch.randn(7, 3))[""])
    assert unit_use(model, torch.randn(64, 3))[""] == 4 / 8
    assert math.isnan(unit_use(model, torch.full((64, 3), torch.nan))[""])


def test_rows_add_up_over_passes_and_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 30)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    layers = Growing.layers_of(model, torch.randn(2, 3))
    with RankRecording(layers) as recording:
        for _ in range(3):
            model(torch.randn(5, 3))
        (rows,) = (torch.cat(rows) for number, rows in recording._rows.items() if number == 0)
        assert rows.shape == (15, 8)
        model(torch.randn(500, 3))
    model(torch.randn(5, 3))
    assert {len(torch.cat(rows)) for rows in recording._rows.values()} == {30, 8}
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_that_was_not_called_has_no_share():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with RankRecording(Growing.layers_of(model, torch.randn(2, 3))) as recording:
        pass
    assert all(math.isnan(value) for value in recording.use().values())


def test_measuring_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    unit_use(model, torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
