"""Ways of watching are drawn from what is configured, and cover every interval."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig, draw_cohort
from tamiyo.envs.training.sensing import VARIED, Sensing, SensingConfig
from tamiyo.graph.schema import ACTIONS, GLOBAL_COLUMNS

SMALL = TrainingConfig(decisions=6, max_hidden=3, widths=(16,), held_out=64)
COLUMNS = [column.name for column in GLOBAL_COLUMNS]
RESTORE = ACTIONS.index("restore")


def draw(seed=0, config=VARIED, interval=10, hosts=200):
    return Sensing.draw(np.random.default_rng(seed), config, interval, hosts)


def watch(sensing, hosts=12, **settings):
    """Observations of an episode in which nothing is done."""
    config = replace(SMALL, sensing=sensing, **settings)
    episode = Episode(
        draw_cohort(np.random.default_rng(3), config, hosts), config, np.random.default_rng(0)
    )
    seen = [episode.observation()]
    while not episode.over:
        episode.step(np.zeros((hosts, 3), np.int64))
        seen.append(episode.observation())
    return episode, seen


def column(seen, name):
    """Values [T, H] of a global column, NaN where missing."""
    place = COLUMNS.index(name)
    known = np.stack([one["global_measured"][:, place] for one in seen]) > 0
    return np.where(known, np.stack([one["global_features"][:, place] for one in seen]), np.nan)


@given(
    interval=st.integers(1, 30),
    pace=st.integers(1, 4),
    readings=st.integers(1, 40),
    eager=st.booleans(),
    moment=st.integers(0, 9),
)
def test_readings_are_spread_over_the_whole_interval(interval, pace, readings, eager, moment):
    config = SensingConfig(paces=(pace,), readings=(readings,), eager=(eager,))
    sensing = draw(0, config, interval, 2)
    strides = sensing.strides(moment)
    assert sensing.interval == interval * pace
    assert sum(strides) == sensing.interval_before(moment)
    assert len(strides) == min(readings, sum(strides))
    assert max(strides) - min(strides) <= 1
    assert min(strides) >= 1
    so_far = sensing.steps(moment) - sensing.lead
    assert so_far == sum(sensing.interval_before(one) for one in range(moment + 1))


def test_eager_watching_begins_with_the_first_steps():
    sensing = draw(config=SensingConfig(leads=(2,), eager=(True,)))
    assert [sensing.steps(moment) for moment in range(6)] == [21, 22, 24, 28, 38, 48]


def test_everything_that_is_configured_occurs():
    drawn = [draw(seed) for seed in range(40)]
    for name, choices in (
        ("interval", {10, 20, 40}),
        ("readings", set(VARIED.readings)),
        ("window", set(VARIED.windows)),
        ("eager", {False, True}),
    ):
        assert {getattr(one, name) for one in drawn} == choices
    assert {one.lead // one.interval for one in drawn} == set(VARIED.leads)
    for name in ("reports_every", "budgets"):
        assert set(np.concatenate([getattr(one, name) for one in drawn])) == set(
            getattr(VARIED, name)
        )
    assert np.mean([one.held_out_known.mean() for one in drawn]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([one.length_known.mean() for one in drawn]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"paces": ()},
        {"readings": (0,)},
        {"leads": (-1,)},
        {"eager": ()},
        {"reports_every": (1, 0)},
        {"held_out_unknown": -0.1},
        {"length_unknown": 1.5},
    ],
)
def test_ways_of_watching_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=r"watch|share|lead"):
        SensingConfig(**settings)


def test_how_runs_are_watched_changes_nothing_about_them():
    plain = draw_cohort(np.random.default_rng(1), SMALL, 20)
    blind = replace(SMALL, sensing=SensingConfig(held_out_unknown=1.0, reports_every=(5,)))
    assert draw_cohort(np.random.default_rng(1), blind, 20).scenarios == plain.scenarios


def test_what_nobody_says_is_missing():
    _, seen = watch(SensingConfig(held_out_unknown=1.0, length_unknown=1.0), faulty=0.0)
    for name in ("validation_accuracy", "validation_trend", "validation_gap", "progress"):
        assert np.isnan(column(seen, name)).all()
    assert not np.isnan(column(seen, "loss_since_start")[1:]).any()


def test_a_sound_run_reports_as_often_as_it_was_asked_to():
    # Decisions are 1, 2, 3, ...; a single report has nothing to be compared with.
    _, seen = watch(SensingConfig(reports_every=(3,)), faulty=0.0)
    reported = ~np.isnan(column(seen, "loss_nonfinite"))
    assert reported.any(axis=1).tolist() == [False, False, *[True] * 5]
    compared = ~np.isnan(column(seen, "loss_since_start"))
    assert compared.all(axis=1).tolist() == [False] * 5 + [True] * 2
    progress = column(seen, "progress")
    assert (progress[2] == progress[4]).all()
    assert (progress[5] > progress[4]).all()


def test_nothing_can_be_restored_that_nobody_has_heard_of():
    _, seen = watch(SensingConfig(reports_every=(3,)), faulty=0.0)
    legal = np.stack([one["model_action_mask"][:, RESTORE] for one in seen])
    assert not legal[:2].any()
    assert legal[2:].any()


def test_an_alarm_is_reported_at_once():
    settings = {"faults": (FaultKind.NOT_A_NUMBER,), "faulty": 1.0, "decisions": 12}
    episode, seen = watch(SensingConfig(reports_every=(100,)), **settings)
    nonfinite = column(seen, "loss_nonfinite")
    struck = np.array([one.fault.step for one in episode.scenarios])
    for host, step in enumerate(struck):
        # The moment t is after interval t + 1.
        first = step // episode.sensing.interval
        assert np.isnan(nonfinite[:first, host]).all() or nonfinite[first - 1, host] == 0.0
        assert nonfinite[first, host] == 1.0


def test_what_was_trained_before_anybody_watched_shows():
    early, _ = watch(SensingConfig(), faulty=0.0)
    late, seen = watch(SensingConfig(leads=(10,)), faulty=0.0)
    assert late.cohort.steps - early.cohort.steps == late.sensing.lead == 100
    assert late.quality.loss.mean() < early.quality.loss.mean()
    np.testing.assert_allclose(column(seen, "progress")[0], 110 / 170, rtol=1e-6)


def test_a_larger_budget_seems_less_used_up():
    config = replace(SMALL, sensing=SensingConfig(budgets=(100,)), faulty=0.0)
    episode = Episode(
        draw_cohort(np.random.default_rng(3), config, 4), config, np.random.default_rng(0)
    )
    rate = ACTIONS.index("scale_learning_rate")
    episode.step(np.tile([1, episode.clinic.nodes, rate], (4, 1)))
    np.testing.assert_allclose(episode.budget_used, 0.01)
