"""The training side: trace a model, probe it, apply decisions, govern and roll back.

Everything here runs inside somebody else's training loop, so nothing here may raise into it,
wait in it, or change what it computes unless a decision says so.
"""

from tamiyo.host.probe import LayerProbe
from tamiyo.host.session import HostSession, Mode
from tamiyo.host.snapshot import RunSnapshot
from tamiyo.host.state import StructureError, rebuild
from tamiyo.host.stats import SessionStats
from tamiyo.host.tracing import TopologyRecorder, trace
from tamiyo.host.training import TrainingRun

__all__ = [
    "HostSession",
    "LayerProbe",
    "Mode",
    "RunSnapshot",
    "SessionStats",
    "StructureError",
    "TopologyRecorder",
    "TrainingRun",
    "rebuild",
    "trace",
]
