"""Batched health columns are those of the live probe on the same networks."""

import numpy as np
import pytest

from plain_hosts import Run
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import HostSpec
from tamiyo.envs.training.measurements import measure, parameter_counts
from tamiyo.envs.training.meter import StepMeter

NODES = 11
STEPS = 6
SPECS = (
    HostSpec("digits", (28, 28, 28, 28, 28), "residual", "relu", seed=1),
    HostSpec("rings", (12, 9, 5), "plain", "tanh", learning_rate=0.5, seed=2),
    HostSpec("wine", (8, 40, 8), "skip", "relu", seed=3),
    HostSpec("digits", (64, 6), "plain", "sigmoid", learning_rate=5.0, seed=4),
    HostSpec("breast_cancer", (30,), "plain", "relu", seed=5),
)
COLUMNS = (
    "activation_variance",
    "avg_correlation",
    "dead_neuron_ratio",
    "saturation",
    "gradient_norm",
    "weight_norm",
    "update_ratio",
    "health_score",
    "flags",
    "error_count",
)


@pytest.fixture(scope="module")
def readings():
    """Of every host the batched reading and the live one, at each of a few steps."""
    specs = sorted(SPECS, key=lambda spec: -spec.hidden)
    cohort = Cohort(specs, steps=STEPS, width=64)
    runs = [Run(spec, STEPS) for spec in specs]
    layers = [run.record().layers() for run in runs]
    found = []
    for _ in range(STEPS):
        meter = StepMeter(cohort.layout.rows, cohort.device)
        cohort.train(meter)
        batched = measure(cohort, meter, NODES)
        found.append((batched, [run.sample(one)[1] for run, one in zip(runs, layers, strict=True)]))
    return specs, cohort, found


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_equal_those_of_the_live_probe(readings, name):
    specs, _, found = readings
    # The live probe estimates the update ratio of larger tensors from a sample of them.
    tolerance = 0.05 if name in ("update_ratio", "health_score") else 2e-4
    for batched, live in found:
        for host, (spec, sample) in enumerate(zip(specs, live, strict=True)):
            nodes = 2 * spec.hidden + 1
            np.testing.assert_allclose(
                batched[name][host, :nodes],
                sample.columns[name],
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{name} of {spec}",
            )


def test_the_cases_cover_dead_saturated_and_wide_layers(readings):
    _, _, found = readings
    assert any(np.nanmax(batched["saturation"]) > 0.2 for batched, _ in found)
    assert any(np.nanmax(batched["dead_neuron_ratio"]) > 0.1 for batched, _ in found)


def test_nodes_that_do_not_exist_are_missing(readings):
    specs, _, found = readings
    for host, spec in enumerate(specs):
        for name in ("health_score", "activation_variance", "gradient_norm"):
            assert np.isnan(found[0][0][name][host, 2 * spec.hidden + 1 :]).all()


def test_parameter_counts_are_those_of_the_modules(readings):
    specs, cohort, _ = readings
    counts = parameter_counts(cohort, NODES)
    for host, spec in enumerate(specs):
        expected = [
            sum(p.numel() for p in layer.parameters()) for layer in Run(spec, 1).model.layers
        ]
        np.testing.assert_array_equal(counts[host, : 2 * spec.hidden + 1 : 2], expected)
