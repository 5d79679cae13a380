"""How the policy learns."""

from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.trainer import ProductionPolicyTrainer

__all__ = ["ProductionPolicyTrainer", "ProductionTrainingConfig"]
