"""From a batch of signals to the graph that the policy reads."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tamiyo import _core
from tamiyo.contracts import AdaptationType, ModelTopology, PerformanceMetrics, SignalBatch
from tamiyo.contracts.signals import MEASUREMENTS, Columns
from tamiyo.graph._pyg import Data
from tamiyo.graph.features import (
    StaticGraph,
    edge_features,
    global_features,
    mean_measured,
    node_features,
)
from tamiyo.graph.schema import ACTIONS, EDGE_DIM, NODE_DIM
from tamiyo.graph.state import ModelGraphState

__all__ = ["AGGREGATE_COUNTS", "AGGREGATE_MEASURES", "ModelGraphBuilder", "newest_moment"]

AGGREGATE_MEASURES = (
    *(f"{name}_mean" for name in MEASUREMENTS),
    *(f"{name}_last" for name in MEASUREMENTS),
    "timestamp",
    "span_seconds",
    "health_trend",
    "stability",
    "activation_variance_start",
    "measured_share",
    "error_rate",
    "ready_share",
    "active_seeds_mean",
    "total_seeds_mean",
)
"""Per-layer aggregates that are NaN where nothing was measured."""

AGGREGATE_COUNTS = (
    "count",
    "step",
    "nonfinite_activation",
    "nonfinite_gradient",
    "nonfinite_weight",
    "nonfinite_last",
)
"""Per-layer aggregates that are 0 for a layer without signals."""

RESTORE = ACTIONS.index(AdaptationType.RESTORE)


class ModelGraphBuilder:
    """Builds `ModelGraphState`s; the static columns of a topology are computed once.

    Args:
        node_feature_dim: Must be the schema's number of node columns, 16.
        edge_feature_dim: Must be the schema's number of edge columns, 8.
        health_threshold: Last health score below which a layer is problematic, in [0, 1].

    Raises:
        ValueError: other dimensions than the schema's, or a threshold outside [0, 1].
    """

    def __init__(
        self,
        node_feature_dim: int = NODE_DIM,
        edge_feature_dim: int = EDGE_DIM,
        *,
        health_threshold: float = 0.3,
    ) -> None:
        if (node_feature_dim, edge_feature_dim) != (NODE_DIM, EDGE_DIM):
            raise ValueError(
                f"the schema has {NODE_DIM} node and {EDGE_DIM} edge columns, "
                f"not {node_feature_dim} and {edge_feature_dim}"
            )
        if not 0 <= health_threshold <= 1:
            raise ValueError(f"health_threshold must be in [0, 1], not {health_threshold}")
        self.node_feature_dim = node_feature_dim
        self.edge_feature_dim = edge_feature_dim
        self.health_threshold = health_threshold
        self._cached: tuple[ModelTopology, StaticGraph] | None = None

    def build_model_graph(
        self,
        health_signals: SignalBatch,
        model_topology: ModelTopology | None = None,
        window_size: int = 100,
        *,
        budget_used: float = float("nan"),
        steps_since_adaptation: float = float("nan"),
    ) -> ModelGraphState:
        """One graph of the model as the signals show it.

        `graph_data` is a PyG `Data` with `x` [N, 16] and `x_measured` [N, 16] (bool); `edge_index`
        [2, E] with every data-flow edge twice, once each way (column `direction`), `edge_attr` and
        `edge_measured` [E, 8]; `layer_type` [N]; `global_features` and `global_measured` [1, G];
        `action_mask` [N, 10], what each layer can take; `model_action_mask` [1, 10], what the model
        as a whole can take. A value whose mask is false is 0.

        Args:
            health_signals: The batch. Features come from its per-layer aggregates (`layers`), or
                where it carries none from its signals.
            model_topology: The model; by default the one that the batch carries, else the layers
                seen, without edges and without legal actions.
            window_size: Signals per layer to aggregate where the batch carries no aggregates.
            budget_used: Share of this epoch's adaptations already spent; NaN when unknown.
            steps_since_adaptation: Optimiser steps; NaN when unknown or when there was none.

        Raises:
            ValueError: neither a signal nor a topology to build from, or a window below 1.
        """
        if window_size < 1:
            raise ValueError(f"window_size must be at least 1, not {window_size}")
        topology = health_signals.topology if model_topology is None else model_topology
        aggregates = _aggregates(health_signals, window_size)
        static = self._static(topology, aggregates)
        layers, seen, ignored = _align(aggregates, len(static.layer_ids), topology is not None)
        metrics = health_signals.metrics
        columns = global_features(layers, seen, metrics, budget_used, steps_since_adaptation)
        sick = layers["health_score_last"] < self.health_threshold
        step, epoch = newest_moment(health_signals)
        return ModelGraphState(
            graph_data=_graph_data(static, layers, columns, metrics),
            timestamp=_newest_timestamp(layers, seen, metrics),
            step=step,
            epoch=epoch,
            health_signals=health_signals,
            topology=topology,
            layer_ids=static.layer_ids,
            layers=layers,
            seen=seen,
            global_metrics=_global_metrics(layers, metrics)
            | {"budget_used": budget_used, "steps_since_adaptation": steps_since_adaptation},
            problematic_layers=tuple(static.layer_ids[sick].tolist()),
            ignored_signals=ignored,
        )

    def _static(self, topology: ModelTopology | None, aggregates: Columns | None) -> StaticGraph:
        if topology is None:
            if aggregates is None or not len(aggregates["layer_id"]):
                raise ValueError("nothing to build a graph from: no signals and no topology")
            return StaticGraph.from_layers(aggregates["layer_id"])
        if not len(topology):
            raise ValueError("nothing to build a graph from: the topology has no layers")
        if self._cached is None or self._cached[0] is not topology:
            self._cached = (topology, StaticGraph.from_topology(topology))
        return self._cached[1]


def _aggregates(batch: SignalBatch, window_size: int) -> Columns | None:
    if batch.layers is not None:
        return batch.layers
    if not len(batch):
        return None
    return _core.window_features(batch.columns, window=window_size)


def _align(
    aggregates: Columns | None, nodes: int, by_id: bool
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.bool_], int]:
    """Aggregates per node, which nodes have any, and how many signals belong to no node."""
    layers: dict[str, npt.NDArray[Any]] = {
        name: np.full(nodes, np.nan) for name in AGGREGATE_MEASURES
    }
    layers |= {name: np.zeros(nodes, np.int64) for name in AGGREGATE_COUNTS}
    seen = np.zeros(nodes, bool)
    if aggregates is None:
        return layers, seen, 0
    ids = aggregates["layer_id"]
    known = ids < nodes if by_id else np.ones(len(ids), bool)
    where = ids[known] if by_id else np.arange(len(ids))
    for name, column in layers.items():
        column[where] = aggregates[name][known]
    seen[where] = True
    return layers, seen, int(aggregates["count"][~known].sum())


def _graph_data(
    static: StaticGraph,
    layers: Columns,
    global_columns: npt.NDArray[Any],
    metrics: tuple[PerformanceMetrics, ...],
) -> Any:
    x, x_measured = _masked(node_features(static, layers))
    edge_attr, edge_measured = _masked(edge_features(static, layers))
    global_values, global_measured = _masked(global_columns[None])
    model_actions = static.model_action_mask.copy()
    # Only the newest report says whether there is a snapshot to go back to.
    model_actions[RESTORE] &= bool(metrics) and metrics[-1].snapshot_step is not None
    return Data(
        x=x,
        x_measured=x_measured,
        edge_index=torch.tensor(static.edge_index),
        edge_attr=edge_attr,
        edge_measured=edge_measured,
        layer_type=torch.tensor(static.layer_type),
        global_features=global_values,
        global_measured=global_measured,
        action_mask=torch.tensor(static.action_mask),
        model_action_mask=torch.tensor(model_actions[None]),
        num_nodes=len(static.layer_ids),
    )


def _masked(values: npt.NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    measured = np.isfinite(values)
    filled = np.where(measured, values, 0.0).astype(np.float32)
    return torch.from_numpy(filled), torch.from_numpy(measured)


def _newest_timestamp(
    layers: Columns, seen: npt.NDArray[np.bool_], metrics: tuple[PerformanceMetrics, ...]
) -> float:
    times = [*layers["timestamp"][seen].tolist(), *(report.timestamp for report in metrics[-1:])]
    return max(times, default=float("nan"))


def newest_moment(batch: SignalBatch) -> tuple[int, int]:
    """Optimiser step and epoch of the newest evidence in a batch; 0 where there is none."""
    steps = batch["step"] if batch.layers is None else batch.layers["step"]
    report = batch.metrics[-1] if batch.metrics else None
    return (
        max(int(steps.max(initial=0)), 0 if report is None else report.step),
        max(int(batch["epoch"].max(initial=0)), 0 if report is None else report.epoch),
    )


def _global_metrics(layers: Columns, metrics: tuple[PerformanceMetrics, ...]) -> dict[str, float]:
    raw = {
        "health": mean_measured(layers["health_score_mean"]),
        "stability": mean_measured(layers["stability"]),
    }
    names = (
        "loss",
        "loss_level",
        "loss_nonfinite",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "progress",
        "probe_overhead",
    )
    latest = metrics[-1] if metrics else None
    for name in names:
        value = None if latest is None else getattr(latest, name)
        raw[name] = float("nan") if value is None else float(value)
    return raw
