"""How the policy learns."""

from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.live import LiveSettings
from tamiyo.learn.rewards import LiveRewards, MultiMetricRewardSystem, RewardConfig
from tamiyo.learn.trainer import LiveSummary, ProductionPolicyTrainer
from tamiyo.learn.training import TrainingSummary

__all__ = [
    "LiveRewards",
    "LiveSettings",
    "LiveSummary",
    "MultiMetricRewardSystem",
    "ProductionPolicyTrainer",
    "ProductionTrainingConfig",
    "RewardConfig",
    "TrainingSummary",
]
