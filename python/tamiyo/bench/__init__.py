"""Measuring Tamiyo on live training runs."""

from tamiyo.bench.rescue import Comparison, compare
from tamiyo.bench.runs import TrainingRecord, train

__all__ = ["Comparison", "TrainingRecord", "compare", "train"]
