"""Runs whose loss does not depend on their inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from tamiyo.contracts.reach import cut_off


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([0.0, 0.0, 0.3], True),
        ([0.0, 0.2, 0.3], True),
        ([0.1, 0.0, 0.3], False),
        ([np.nan, 0.0, 0.3], True),
        ([np.nan, 0.1, 0.0], False),
        ([np.inf, 0.0], False),
        ([0.0, np.inf], True),
        ([0.0, 0.0, 0.0], False),
        ([np.nan, np.nan], False),
        ([], False),
    ],
)
def test_what_counts_is_the_first_layer_that_was_measured(norms, expected):
    assert cut_off(np.array(norms)) is expected


@pytest.mark.parametrize("dead", [None, 0, 2, 4])
def test_a_layer_that_is_dead_as_a_whole_cuts_off_all_before_it(dead):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip
    if dead is not None:
        nn.init.constant_(model[dead].bias, -100.0)
    inputs = torch.randn(32, 4)
    nn.functional.cross_entropy(model(inputs), torch.arange(32) % 3).backward()
    norms = [
        float(nn.utils.get_total_norm([own.grad for own in layer.parameters()]))
        for layer in model
        if isinstance(layer, nn.Linear)
    ]
    assert cut_off(np.array(norms)) is (dead is not None)
    if dead is not None:
        assert torch.equal(model(inputs), model(inputs.flip(0)))
