"""Faults do what they say, where they can, and their cures pay: measured, in pairs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.data import HELD_OUT_DATA, TRAINING_DATA, dataset
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.faults import (
    CURABLE,
    CURES,
    EARLY,
    WHOLE_RUN,
    Fault,
    FaultKind,
    draw_fault,
    places,
    strike,
)
from tamiyo.envs.training.hosts import HostSpec
from tamiyo.envs.training.sampling import Scenario, TrainingConfig, draw_cohort
from tamiyo.graph.schema import ACTIONS
from watched_plans import watched

PLAIN = HostSpec("wine", (9, 8, 7), "plain", "relu")
RESIDUAL = HostSpec("wine", (8, 8, 8), "residual", "tanh")
KINDS = [kind for kind in FaultKind if kind is not FaultKind.HEALTHY]


@pytest.fixture
def cohort():
    return Cohort((PLAIN, RESIDUAL), steps=40, width=16)


def row(cohort, host, layer):
    return int(cohort.layout.row_of[host, layer])


@pytest.mark.parametrize(
    ("kind", "factor"), [(FaultKind.LARGE_LAYER, 7.0), (FaultKind.EXPLODING_UPSTREAM, 30.0)]
)
def test_weights_are_scaled(cohort, kind, factor):
    before = cohort.weights.row(row(cohort, 0, 1)).clone()
    strike(cohort, 0, Fault(kind, 1, strength=factor))
    torch.testing.assert_close(cohort.weights.row(row(cohort, 0, 1)), factor * before)


def test_learning_rates_are_scaled(cohort):
    strike(cohort, 0, Fault(FaultKind.RATE_HIGH, WHOLE_RUN, strength=50.0))
    own = torch.as_tensor(cohort.layout.host_of == 0)
    assert cohort.learning_rate[own].tolist() == pytest.approx([2.5] * 4)
    strike(cohort, 1, Fault(FaultKind.FROZEN_LAYER, 3, strength=1e-3))
    assert cohort.learning_rate[row(cohort, 1, 3)].item() == pytest.approx(5e-5)
    assert (cohort.learning_rate[~own] == 0.05).sum() == 3


def test_a_dying_layer_is_dead_and_its_padding_stays_zero(cohort):
    strike(cohort, 0, Fault(FaultKind.DYING_RELU, 1, strength=30.0))
    bias = cohort.weights.bias[row(cohort, 0, 1)]
    assert (bias[:8] == -30.0).all()
    assert not bias[8:].any()


def test_a_nan_breaks_its_host_alone(cohort):
    strike(cohort, 0, Fault(FaultKind.NOT_A_NUMBER, 2))
    losses = torch.stack([cohort.train() for _ in range(5)])
    assert losses[:, 0].isnan().all()
    assert losses[:, 1].isfinite().all()


def test_places_are_those_that_can_be_mended():
    assert places(FaultKind.RATE_LOW, RESIDUAL) == [WHOLE_RUN]
    assert places(FaultKind.DYING_RELU, PLAIN) == [0, 1, 2]
    assert places(FaultKind.DYING_RELU, RESIDUAL) == []
    assert places(FaultKind.BOTTLENECK, RESIDUAL) == []
    assert places(FaultKind.NOT_A_NUMBER, RESIDUAL) == [0, 1, 2, 3]
    assert places(FaultKind.EXPLODING_UPSTREAM, PLAIN) == [0]
    assert places(FaultKind.FROZEN_LAYER, PLAIN) == [0]
    assert places(FaultKind.ZERO_LAYER, replace(PLAIN, activation="tanh")) == []
    assert places(FaultKind.RATE_HIGH, RESIDUAL) == []


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_faults_can_strike(kind):
    config = TrainingConfig(faults=(kind,), faulty=1.0, max_hidden=5)
    random = np.random.default_rng(0)
    plan = draw_cohort(random, config, 12)
    assert {one.fault.kind for one in plan.scenarios} == {kind}
    for one in plan.scenarios:
        assert one.fault.layer in places(kind, one.spec) or kind is FaultKind.BOTTLENECK
        assert 0 <= one.fault.step <= config.most_steps // 2
        assert max(one.spec.widths) <= plan.width
    assert CURES[kind]


def test_drawing_depends_on_the_seed_alone():
    config = TrainingConfig()
    first, again, other = (
        draw_cohort(np.random.default_rng(seed), config, 8).scenarios for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_half_of_the_runs_are_healthy_and_all_depths_are_drawn():
    config, random = TrainingConfig(), np.random.default_rng(0)
    drawn = [one for _ in range(20) for one in draw_cohort(random, config, 32).scenarios]
    healthy = np.mean([one.fault.kind is FaultKind.HEALTHY for one in drawn])
    assert healthy == pytest.approx(0.5, abs=0.06)
    assert {one.spec.hidden for one in drawn} == set(range(1, 12))
    assert {one.spec.wiring for one in drawn} == {"plain", "residual", "skip"}
    assert {one.spec.data for one in drawn} == set(TRAINING_DATA)
    assert {one.fault.kind for one in drawn} == {FaultKind.HEALTHY, *CURABLE}


def test_draws_of_a_step_are_within_their_range():
    random = np.random.default_rng(0)
    steps = {draw_fault(random, FaultKind.NOT_A_NUMBER, PLAIN, (3, 5)).step for _ in range(60)}
    assert steps == {3, 4, 5}


@pytest.mark.parametrize("kind", [FaultKind.RATE_LOW, FaultKind.EXPLODING_UPSTREAM])
def test_half_of_the_faults_that_can_be_there_from_the_start_are(kind):
    random = np.random.default_rng(0)
    steps = np.array([draw_fault(random, kind, PLAIN, (3, 5)).step for _ in range(400)])
    assert (steps == 0).mean() == pytest.approx(EARLY, abs=0.08)
    assert set(steps) == {0, 3, 4, 5}


@pytest.mark.parametrize(("optimizer", "starts"), [("sgd", {0, 3}), ("adam", {3})])
def test_what_adam_cannot_be_cured_of_is_never_there_from_the_start(optimizer, starts):
    random, spec = np.random.default_rng(0), replace(PLAIN, optimizer=optimizer)
    steps = {draw_fault(random, FaultKind.RATE_HIGH, spec, (3, 3)).step for _ in range(60)}
    assert steps == starts


def test_faults_that_no_host_can_have_are_not_drawn_for():
    shallow = TrainingConfig(faulty=1.0, max_hidden=1)
    drawn = draw_cohort(np.random.default_rng(0), shallow, 64).scenarios
    assert FaultKind.EXPLODING_UPSTREAM not in {one.fault.kind for one in drawn}
    nothing = replace(shallow, faults=(FaultKind.EXPLODING_UPSTREAM,))
    with pytest.raises(ValueError, match="no host"):
        draw_cohort(np.random.default_rng(0), nothing, 64)


def test_one_unit_is_no_bottleneck_for_two_classes():
    assert places(FaultKind.BOTTLENECK, replace(PLAIN, data="digits"))
    assert not places(FaultKind.BOTTLENECK, replace(PLAIN, data="breast_cancer"))
    config = TrainingConfig(faulty=1.0, data=("moons",))
    drawn = draw_cohort(np.random.default_rng(0), config, 64).scenarios
    assert FaultKind.BOTTLENECK not in {one.fault.kind for one in drawn}


@pytest.mark.parametrize("name", [*TRAINING_DATA, *HELD_OUT_DATA])
def test_every_data_set_can_be_learned(name):
    data = dataset(name)
    assert len(data.train_labels) >= 100
    assert set(data.train_labels) == set(data.held_out_labels) == set(range(data.classes))
    np.testing.assert_allclose(data.train.mean(axis=0), 0.0, atol=1e-5)
    specs = [HostSpec(name, (32, 32), "plain", "relu", "adam", 5e-3, seed=0)]
    cohort = Cohort(specs, steps=300)
    x, labels = cohort.pool.held_out(200)
    for _ in range(300):
        cohort.train()
    _, accuracy = cohort.evaluate(x, labels)
    most_frequent = np.bincount(data.held_out_labels).max() / len(data.held_out_labels)
    assert accuracy.item() > most_frequent + 0.15


def test_training_and_held_out_data_are_apart():
    assert not set(TRAINING_DATA) & set(HELD_OUT_DATA)
    with pytest.raises(ValueError, match="unknown data set"):
        dataset("imagenet")


@pytest.mark.parametrize(("step", "cure"), [(0, None), (40, AdaptationType.RESTORE)])
def test_the_oracle_treats_what_is_not_a_number_with_a_snapshot_or_not_at_all(step, cure):
    config = TrainingConfig(max_hidden=3)
    fault = Fault(FaultKind.RATE_HIGH, WHOLE_RUN, step, strength=1e12)
    plan = watched([Scenario(PLAIN, fault)], 16, config)
    episode = Episode(plan, config, np.random.default_rng(0))
    wait = np.zeros((1, 3), np.int64)
    while episode.cohort.steps <= step:
        episode.step(wait)
    weights = episode.cohort.weights.row(row(episode.cohort, 0, 0))
    assert weights.isnan().any()
    expected = [[0, 0, 0]] if cure is None else [[1, episode.clinic.nodes, ACTIONS.index(cure)]]
    assert episode.oracle().tolist() == expected


def gains(kind, runs, cohorts):
    """Final accuracy of runs that the oracle treats, minus that of their twins."""
    config = TrainingConfig(faults=(kind,), faulty=1.0, widths=(32,))
    found = []
    for number in range(cohorts):
        random = np.random.default_rng([7, number])
        episode = Episode(draw_cohort(random, config, runs // cohorts), config, random)
        while not episode.over:
            episode.step(episode.oracle())
        found.append(episode.quality.accuracy - episode.twin.accuracy)
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CURABLE)
def test_the_oracle_gains(kind):
    gain = gains(kind, runs=64, cohorts=4)
    error = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    print(f"{kind}: {gain.mean():+.3f} ± {error:.3f}")
    assert gain.mean() - error > 0
