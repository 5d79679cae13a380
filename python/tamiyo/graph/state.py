"""One moment of one run, as the policy sees it and as a person can check it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import ModelTopology, PerformanceMetrics, SignalBatch
from tamiyo.contracts.signals import Columns
from tamiyo.graph.schema import SCHEMA_VERSION

__all__ = ["ModelGraphState"]


@dataclass(frozen=True, eq=False)
class ModelGraphState:
    """The graph of a model in training, with the raw numbers it was made from.

    Nodes are layers; node `i` is the layer `layer_ids[i]`. Everything in `layers` is per node, NaN
    (or a zero count) where `seen` is false.
    """

    graph_data: Any
    """PyG `Data`; `ModelGraphBuilder.build_model_graph` documents its fields."""
    timestamp: float
    """Seconds since the Unix epoch of the newest evidence; NaN when there is none."""
    step: int
    """Optimiser step of the newest evidence."""
    epoch: int
    health_signals: SignalBatch
    topology: ModelTopology | None
    layer_ids: npt.NDArray[np.uint32]
    """[N]."""
    layers: Columns
    """Raw per-layer aggregates, each [N]; the names are those of the core's `layer_fields`."""
    seen: npt.NDArray[np.bool_]
    """[N]: whether the window holds signals of this layer."""
    global_metrics: Mapping[str, float]
    """Raw model-level numbers; NaN where nothing was measured."""
    problematic_layers: tuple[int, ...]
    """Ids of the layers whose last health score is below the builder's threshold."""
    ignored_signals: int = 0
    """Signals of layers that the topology does not know."""
    schema_version: int = SCHEMA_VERSION

    @property
    def run(self) -> str | None:
        """The run's name, where a topology says it."""
        return None if self.topology is None else self.topology.run

    @property
    def metrics(self) -> tuple[PerformanceMetrics, ...]:
        """Model-level reports, oldest first."""
        return self.health_signals.metrics

    @cached_property
    def health_trends(self) -> Mapping[int, npt.NDArray[np.float32]]:
        """Each layer's recent health scores, oldest first, from the signals that were kept.

        Layers without a measured health score among those signals are absent.
        """
        ids, health = self.health_signals["layer_id"], self.health_signals["health_score"]
        measured = ~np.isnan(health)
        ids, health = ids[measured], health[measured]
        order = np.argsort(ids, kind="stable")
        unique, starts = np.unique(ids[order], return_index=True)
        series = np.split(health[order], starts[1:])
        return dict(zip(unique.tolist(), series, strict=False))
