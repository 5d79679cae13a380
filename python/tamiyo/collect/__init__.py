"""The controller's ear: telemetry from the bus, through the Rust core, into columns."""

from tamiyo.collect.collector import CollectionStats, ProductionHealthCollector
from tamiyo.collect.filter import SignalFilterEngine

__all__ = ["CollectionStats", "ProductionHealthCollector", "SignalFilterEngine"]
