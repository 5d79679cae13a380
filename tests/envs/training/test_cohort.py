"""The batched program trains exactly what plain PyTorch trains."""

import itertools

import pytest
import torch

from plain_hosts import Run
from tamiyo.envs.training import updates
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import ACTIVATIONS, HostSpec

STEPS = 200
WIRINGS = ("plain", "residual", "skip")


def spec(index, wiring, activation, optimizer):
    """Hosts of mixed depth, width and data."""
    hidden = (1, 3, 6, 2, 11)[index % 5]
    width = (7, 16, 24)[index % 3]
    if wiring == "plain":
        widths = tuple(width - (level % 3) for level in range(hidden))
    else:
        widths = (width,) * hidden
    return HostSpec(
        data=("digits", "wine", "rings", "breast_cancer")[index % 4],
        widths=widths,
        wiring=wiring,
        activation=activation,
        optimizer=optimizer,
        learning_rate=0.02 if optimizer == "sgd" else 1e-3,
        momentum=(0.9, 0.5, 0.0)[index % 3],
        schedule=("constant", "cosine", "warmup")[index % 3],
        initialization=("scaled", "default")[hidden <= 3],
        seed=index,
    )


def cohort_of(optimizer):
    combinations = itertools.product(WIRINGS, ACTIVATIONS)
    specs = [
        spec(index, wiring, activation, optimizer)
        for index, (wiring, activation) in enumerate(combinations)
    ]
    return sorted(specs, key=lambda one: -one.hidden)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_equals_plain_pytorch_for_every_wiring_and_activation(optimizer, dtype, tolerance):
    specs = cohort_of(optimizer)
    cohort = Cohort(specs, steps=STEPS, width=32, dtype=dtype)
    losses = torch.stack([cohort.train() for _ in range(STEPS)])
    for host, one in enumerate(specs):
        run = Run(one, STEPS, dtype)
        expected = torch.tensor([run.train() for _ in range(STEPS)], dtype=dtype)
        torch.testing.assert_close(losses[:, host], expected, atol=tolerance, rtol=tolerance)
        assert expected[-20:].mean() < expected[:20].mean(), one
        for layer, linear in enumerate(run.model.layers):
            row = int(cohort.layout.row_of[host, layer])
            units, inputs = linear.weight.shape
            weight = cohort.weights.row(row)
            torch.testing.assert_close(
                weight[:inputs, :units].T, linear.weight, atol=tolerance, rtol=tolerance
            )
            torch.testing.assert_close(
                cohort.weights.bias[row, :units], linear.bias, atol=tolerance, rtol=tolerance
            )
            assert not weight[inputs:].any()
            assert not weight[:, units:].any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_how_updates_are_cut_into_blocks_changes_nothing(optimizer, monkeypatch):
    def course(block):
        monkeypatch.setattr(updates, "BLOCK", block)
        cohort = Cohort(cohort_of(optimizer), steps=20, width=32)
        cohort.clip_ratio[3::5] = 0.01
        cohort.rewire()
        losses = torch.stack([cohort.train() for _ in range(20)])
        return [losses, *cohort.weights]

    whole = course(2**24)
    for block in (1, 5000, 2**15):
        assert all(map(torch.equal, whole, course(block)))
