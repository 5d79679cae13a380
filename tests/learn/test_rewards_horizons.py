"""Effects by horizon: whatever is shared out, its parts sum to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamiyo.learn.rewards import attribute, horizon_effects

HORIZONS = (1, 4, 16)
RUNS = 2
VALUES = st.floats(-10, 10)


@st.composite
def episodes(draw):
    length = draw(st.integers(1, 40))
    rewards = draw(hnp.arrays(np.float64, (length, RUNS), elements=VALUES))
    acted = draw(hnp.arrays(np.bool_, (length, RUNS)))
    return rewards, acted


def levels(rewards):
    return np.concatenate([np.zeros((1, RUNS)), rewards.cumsum(0)])


@given(episodes())
def test_the_bands_after_a_moment_sum_to_its_return_to_go(episode):
    objective = levels(episode[0])
    effects = horizon_effects(objective, HORIZONS)
    to_go = objective[-1] - objective[:-1]
    np.testing.assert_allclose(effects.sum(-1), to_go, atol=1e-9)


def test_each_band_is_the_change_between_two_horizons():
    objective = np.arange(21.0)[:, None] ** 2
    effects = horizon_effects(objective, HORIZONS)[:, 0]
    assert effects[0].tolist() == [1, 15, 240, 144]
    assert effects[2].tolist() == [9 - 4, 36 - 9, 324 - 36, 400 - 324]
    assert effects[18].tolist() == [361 - 324, 400 - 361, 0, 0]


@given(episodes())
def test_every_reward_is_credited_once(episode):
    rewards, acted = episode
    shares = attribute(rewards, acted, HORIZONS)
    np.testing.assert_allclose(shares.total, rewards.sum(0), atol=1e-9)
    assert not shares.credit[~acted].any()


@given(episodes())
def test_one_decision_gets_its_horizon_effects(episode):
    """With a single decision at the start both functions must agree."""
    rewards, _ = episode
    acted = np.zeros_like(rewards, dtype=np.bool_)
    acted[0] = True
    shares = attribute(rewards, acted, HORIZONS)
    effects = horizon_effects(levels(rewards), HORIZONS)
    np.testing.assert_allclose(shares.credit[0], effects[0], atol=1e-9)
    assert not shares.unattributed.any()


def test_the_latest_decision_is_credited_by_age():
    rewards = np.array([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0], [64.0]])
    acted = np.array([[False], [True], [False], [False], [True], [False], [False]])
    shares = attribute(rewards, acted, (1, 2, 3))
    assert shares.unattributed.tolist() == [1.0]
    assert shares.credit[1, 0].tolist() == [2, 4, 8, 0]
    assert shares.credit[4, 0].tolist() == [16, 32, 64, 0]


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="must both be"):
        attribute(np.zeros((3, 1)), np.zeros((2, 1)), HORIZONS)
