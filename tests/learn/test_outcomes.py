"""What followed an action, told to the heads that should have foreseen it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.graph.schema import GLOBAL_COLUMNS
from tamiyo.learn.outcomes import OUTLOOK, TOLERANCE, outcome_targets
from tamiyo.learn.segments import TARGETS

HEALTH = [column.name for column in GLOBAL_COLUMNS].index("health_mean")


def targets(rewards, acted, over, health=None):
    """Of one run, by name."""
    rewards, acted, over = (np.array(column)[:, None] for column in (rewards, acted, over))
    features = np.zeros((*rewards.shape, len(GLOBAL_COLUMNS)))
    if health is not None:
        features[:, 0, HEALTH] = health
    measured = np.full(features.shape, health is not None)
    found = outcome_targets(rewards, acted == 1, over == 1, features, measured)
    return dict(zip(TARGETS, found[:, 0].T, strict=True))


def test_an_action_answers_for_what_follows_until_the_next():
    found = targets([0.0, -0.2, -0.3, 0.4, 0.0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found["safety"], [np.nan, 0.0, np.nan, 1.0, np.nan])
    np.testing.assert_allclose(found["risk"], [np.nan, 0.5, np.nan, 0.0, np.nan])
    assert np.isnan(found["urgency"]).all()


def test_what_is_lost_in_the_next_episode_is_not_its_fault():
    found = targets([0.1, 0.0, -0.9], [1, 0, 0], [0, 1, 0])
    assert found["safety"][0] == 1.0


def test_a_row_that_is_cut_off_says_nothing_of_its_last_action():
    found = targets([-0.9, 0.0, -0.9, 0.0], [1, 0, 1, 0], [0, 0, 0, 0])
    np.testing.assert_array_equal(found["safety"], [0.0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(found["risk"][:1], [0.9])


def test_trends_do_not_reach_into_the_next_episode():
    health = np.linspace(0.0, 0.9, 10)
    found = targets(np.zeros(10), np.zeros(10), np.arange(10) == 6, health)
    known = ~np.isnan(found["health_trend"])
    # Up to the last state of the episode that ends after decision 6.
    assert known.tolist() == [step + OUTLOOK <= 6 for step in range(10)]
    np.testing.assert_allclose(found["health_trend"][known], 0.1 * OUTLOOK, rtol=1e-6)


def test_what_was_not_measured_has_no_trend():
    assert np.isnan(targets(np.zeros(8), np.zeros(8), np.arange(8) == 7)["health_trend"]).all()


@given(st.integers(0, 2**32 - 1))
def test_equals_the_definition_read_aloud(seed):
    random = np.random.default_rng(seed)
    steps = int(random.integers(1, 20))
    rewards = random.normal(0.0, 0.2, steps)
    acted, over = random.random(steps) < 0.3, random.random(steps) < 0.2
    found = targets(rewards, acted, over)
    for step in range(steps):
        lost, known = 0.0, False
        for later in range(step, steps):
            if later > step and acted[later]:
                known = True
                break
            lost -= rewards[later]
            if over[later]:
                known = True
                break
        if not acted[step] or not known:
            assert np.isnan(found["safety"][step])
            assert np.isnan(found["risk"][step])
        else:
            assert found["safety"][step] == (lost <= TOLERANCE)
            assert found["risk"][step] == pytest.approx(np.clip(lost, 0.0, 1.0), abs=1e-6)
