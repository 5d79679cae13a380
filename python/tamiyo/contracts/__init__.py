"""What crosses a boundary: signals, topology, decisions, results, topics and their wire form.

Nothing here imports any other part of Tamiyo except the compiled core, which owns the
field table of a health signal.
"""

from tamiyo.contracts.decisions import (
    AdaptationDecision,
    AdaptationResult,
    AdaptationType,
    Outcome,
)
from tamiyo.contracts.metrics import PerformanceMetrics
from tamiyo.contracts.signals import FIELDS, MEASUREMENTS, Flag, HealthSignal, SignalBatch
from tamiyo.contracts.topics import CONTROL_TOPICS, TELEMETRY_TOPICS, Topic
from tamiyo.contracts.topology import ModelTopology, TopologyEdge, TopologyNode
from tamiyo.contracts.wire import WireError

__all__ = [
    "CONTROL_TOPICS",
    "FIELDS",
    "MEASUREMENTS",
    "TELEMETRY_TOPICS",
    "AdaptationDecision",
    "AdaptationResult",
    "AdaptationType",
    "Flag",
    "HealthSignal",
    "ModelTopology",
    "Outcome",
    "PerformanceMetrics",
    "SignalBatch",
    "Topic",
    "TopologyEdge",
    "TopologyNode",
    "WireError",
]
