"""What a decision was worth: one objective, its difference as the reward, and honest reports.

`MultiMetricRewardSystem` serves any number of runs at once, `LiveRewards` feeds it from a live one.
"""

from tamiyo.learn.rewards.config import BANDS, COMPONENTS, RewardConfig
from tamiyo.learn.rewards.constraints import GROWING, allowed_actions
from tamiyo.learn.rewards.correlation import (
    Association,
    CorrelationReport,
    Finding,
    analyze_correlations,
)
from tamiyo.learn.rewards.forecast import Forecast, LearningCurve
from tamiyo.learn.rewards.horizons import Attribution, attribute, horizon_effects
from tamiyo.learn.rewards.live import LiveRewards
from tamiyo.learn.rewards.measurements import Measurements
from tamiyo.learn.rewards.quality import Metric, QualityScale
from tamiyo.learn.rewards.system import MultiMetricRewardSystem, Rewards

__all__ = [
    "BANDS",
    "COMPONENTS",
    "GROWING",
    "Association",
    "Attribution",
    "CorrelationReport",
    "Finding",
    "Forecast",
    "LearningCurve",
    "LiveRewards",
    "Measurements",
    "Metric",
    "MultiMetricRewardSystem",
    "QualityScale",
    "RewardConfig",
    "Rewards",
    "allowed_actions",
    "analyze_correlations",
    "attribute",
    "horizon_effects",
]
