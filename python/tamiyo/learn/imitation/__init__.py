"""Learning from an expert who is told what is wrong."""

from tamiyo.learn.imitation.cloning import CloningConfig, clone
from tamiyo.learn.imitation.demonstrations import Demonstrations, LessonPlan, demonstrate

__all__ = ["CloningConfig", "Demonstrations", "LessonPlan", "clone", "demonstrate"]
