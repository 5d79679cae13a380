"""The learner's memory: segments of experience, drawn in proportion to what they still teach."""

from tamiyo.learn.replay.buffer import PrioritizedReplay
from tamiyo.learn.replay.memory import ReplaySample

__all__ = ["PrioritizedReplay", "ReplaySample"]
