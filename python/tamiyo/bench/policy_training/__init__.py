"""The training of the policy that ships: `tamiyo train`."""

from tamiyo.bench.policy_training.history import learning_curve
from tamiyo.bench.policy_training.pipeline import Trained, train_policy
from tamiyo.bench.policy_training.presets import PRESETS, Ablation, Preset

__all__ = ["PRESETS", "Ablation", "Preset", "Trained", "learning_curve", "train_policy"]
