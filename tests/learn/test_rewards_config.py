"""Settings, scales and measurements refuse what makes no sense."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from tamiyo.learn.rewards import (
    BANDS,
    COMPONENTS,
    Measurements,
    Metric,
    MultiMetricRewardSystem,
    QualityScale,
    RewardConfig,
)


def test_weights_come_in_the_order_of_the_components():
    config = RewardConfig(accuracy=1, speed=2, memory=3, stability=4, safety=5)
    assert config.weights == (1, 2, 3, 4, 5)
    assert COMPONENTS == ("accuracy", "speed", "memory", "stability", "safety")
    assert len(BANDS) == len(config.horizons) + 1


@pytest.mark.parametrize(
    "settings",
    [
        {"accuracy": -1},
        {"speed": math.inf},
        {"safety": math.nan},
        dict.fromkeys(COMPONENTS, 0),
        {"episode_length": 0},
        {"horizons": (1, 1, 4)},
        {"horizons": (4, 2, 16)},
        {"compute_limit": 1.0},
        {"rollback_limit": 0},
        {"forecast_error_limit": 0},
        {"nope": 1},
    ],
)
def test_nonsense_is_refused(settings):
    with pytest.raises(ValidationError):
        RewardConfig(**settings)


def test_settings_cannot_be_changed_in_mid_run():
    with pytest.raises(ValidationError, match="frozen"):
        RewardConfig().accuracy = 2


@pytest.mark.parametrize(
    ("metric", "chance", "values", "expected"),
    [
        (Metric.ACCURACY, 0.1, [0.1, 0.55, 1.0, 0.0], [0, 0.5, 1, 0]),
        (Metric.LOSS, math.log(10), [math.log(10), 0.0, math.log(10) / 4], [0, 1, 0.75]),
        (Metric.LOSS, 2.0, [1e9, math.inf, math.nan], [0, 0, math.nan]),
    ],
)
def test_quality_is_0_at_chance_and_1_at_best(metric, chance, values, expected):
    np.testing.assert_allclose(QualityScale(metric, chance).quality(values), expected)


def test_a_diverged_network_is_worth_nothing_and_is_not_missing():
    scale = QualityScale(Metric.LOSS, 2.0)
    np.testing.assert_array_equal(scale.quality([math.nan, 1.0], [True, False]), [0.0, 0.5])


@pytest.mark.parametrize(
    ("metric", "chance"),
    [
        (Metric.ACCURACY, 1.0),
        (Metric.ACCURACY, -0.1),
        (Metric.ACCURACY, math.nan),
        (Metric.LOSS, 0.0),
        (Metric.LOSS, math.inf),
    ],
)
def test_a_chance_level_has_to_leave_room(metric, chance):
    with pytest.raises(ValueError, match="chance"):
        QualityScale(metric, chance)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality": [[0.5]]}, r"shape \[H\]"),
        ({"quality": [1.5, 0.0]}, "quality must be in"),
        ({"twin_quality": [-0.1, 0.0]}, "twin_quality must be finite"),
        ({"compute": [math.inf, 1.0]}, "compute must be finite"),
        ({"unstable": [2.0, 0.0]}, "unstable must be in"),
        ({"rollbacks": [math.nan, 0.0]}, "rollbacks are counted"),
    ],
)
def test_measurements_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Measurements.of(**{"quality": [0.5, 0.5], "twin_quality": 0.5} | settings)


def test_measurements_have_one_value_per_run():
    whole = Measurements.of([0.5, 0.5], 0.5)
    columns = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"memory has the shape \(3,\)"):
        Measurements(**columns | {"memory": np.ones(3)})
    with pytest.raises(ValueError, match="2 runs measured, 3 expected"):
        MultiMetricRewardSystem(3).step(whole)
    with pytest.raises(ValueError, match="at least one run"):
        MultiMetricRewardSystem(0)
