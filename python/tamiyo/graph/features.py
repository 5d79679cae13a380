"""The columns of `schema`, computed from per-layer aggregates and model-level reports.

Values are NaN where they are missing; the builder turns NaN into a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import ModelTopology, PerformanceMetrics
from tamiyo.contracts.signals import Columns
from tamiyo.graph.scales import DECADES, Floats, decades, quotient
from tamiyo.graph.schema import (
    ACTIONS,
    EDGE_COLUMNS,
    EDGE_DIM,
    GLOBAL_COLUMNS,
    NODE_COLUMNS,
    layer_type_index,
)

__all__ = ["StaticGraph", "edge_features", "global_features", "mean_measured", "node_features"]

HEALTHY_UPDATE_RATIO = 1e-3
TREND_REPORTS = 32
MINIMUM_TREND = 4


@dataclass(frozen=True, eq=False)
class StaticGraph:
    """What a topology alone decides. Every data-flow edge appears twice, once each way."""

    layer_ids: npt.NDArray[np.uint32]
    layer_type: npt.NDArray[np.int64]
    parameters: Floats
    depth: Floats
    """[N], in [0, 1]; NaN without a topology or with a single level."""
    action_mask: npt.NDArray[np.bool_]
    model_action_mask: npt.NDArray[np.bool_]
    edge_index: npt.NDArray[np.int64]
    """[2, E]: first with the data, then against it."""
    edge_attr: Floats
    """[E, 8], the dynamic columns still NaN."""

    @classmethod
    def from_topology(cls, topology: ModelTopology) -> "StaticGraph":
        """Static columns of a traced model."""
        nodes = topology.nodes
        levels = np.array(topology.depths, dtype=np.float32).reshape(len(nodes))
        deepest = levels.max(initial=0.0)
        edges = np.array(
            [(edge.source, edge.target) for edge in topology.edges], dtype=np.int64
        ).reshape(-1, 2)
        return cls(
            layer_ids=np.arange(len(nodes), dtype=np.uint32),
            layer_type=np.array([layer_type_index(node.type) for node in nodes], dtype=np.int64),
            parameters=np.array([node.parameters for node in nodes], dtype=np.float64),
            depth=levels / deepest if deepest else np.full(len(nodes), np.nan, np.float32),
            action_mask=np.array([_mask(node.actions) for node in nodes], dtype=bool).reshape(
                len(nodes), len(ACTIONS)
            ),
            model_action_mask=np.array(_mask(topology.actions), dtype=bool),
            edge_index=np.concatenate([edges, edges[:, ::-1]]).T,
            edge_attr=_static_edges(topology, edges, levels, float(deepest)),
        )

    @classmethod
    def from_layers(cls, layer_ids: npt.NDArray[np.uint32]) -> "StaticGraph":
        """Layers that were seen but never announced: no edges, and nothing may be done to them."""
        count = len(layer_ids)
        return cls(
            layer_ids=layer_ids,
            layer_type=np.zeros(count, np.int64),
            parameters=np.full(count, np.nan),
            depth=np.full(count, np.nan),
            action_mask=np.zeros((count, len(ACTIONS)), bool),
            model_action_mask=np.zeros(len(ACTIONS), bool),
            edge_index=np.zeros((2, 0), np.int64),
            edge_attr=np.zeros((0, EDGE_DIM)),
        )


def node_features(static: StaticGraph, layers: Columns) -> Floats:
    """[N, 16]: `NODE_COLUMNS` from per-node aggregates."""
    gradient = layers["gradient_norm_last"]
    latency = layers["execution_latency_mean"]
    slots = layers["total_seeds_mean"]
    columns: dict[str, Floats] = {
        "health": layers["health_score_mean"],
        "measured_share": layers["measured_share"],
        "activation_variance": decades(
            layers["activation_variance_last"], layers["activation_variance_start"], compares=True
        ),
        "dead_ratio": layers["dead_neuron_ratio_last"],
        "correlation": layers["avg_correlation_last"],
        "saturation": layers["saturation_last"],
        "gradient_norm": decades(gradient, _median_measured(gradient[gradient > 0])),
        "update_ratio": decades(layers["update_ratio_last"], HEALTHY_UPDATE_RATIO),
        "latency": decades(latency, mean_measured(latency)),
        "error_rate": np.minimum(layers["error_rate"], 1.0),
        "health_trend": np.clip(layers["health_trend"] * layers["span_seconds"], -1.0, 1.0),
        "stability": layers["stability"],
        "occupied_seeds": quotient(layers["active_seeds_mean"], slots),
        "ready": layers["ready_share"],
        "parameters": np.minimum(np.log10(1.0 + static.parameters) / 8.0, 1.0),
        "depth": static.depth,
    }
    return np.stack([columns[column.name] for column in NODE_COLUMNS], axis=1)


def edge_features(static: StaticGraph, layers: Columns) -> Floats:
    """[E, 8]: `EDGE_COLUMNS`, the static ones copied and the dynamic ones filled in."""
    attributes = static.edge_attr.copy()
    source, target = static.edge_index
    gradient = layers["gradient_norm_last"]
    with np.errstate(invalid="ignore"):
        deviation = np.sqrt(layers["activation_variance_last"])
    attributes[:, _edge("gradient_flow")] = decades(
        gradient[source], gradient[target], compares=True
    )
    attributes[:, _edge("activation_scale")] = decades(
        deviation[source], deviation[target], compares=True
    )
    return attributes


def global_features(
    layers: Columns,
    seen: npt.NDArray[np.bool_],
    metrics: Sequence[PerformanceMetrics],
    budget_used: float,
    steps_since_adaptation: float,
) -> Floats:
    """[G]: `GLOBAL_COLUMNS`."""
    latest = metrics[-1] if metrics else None
    loss, validation = _series(metrics, "loss"), _series(metrics, "validation_loss")
    rate = _series(metrics, "learning_rate")
    health = layers["health_score_mean"]
    trend = np.clip(layers["health_trend"] * layers["span_seconds"], -1.0, 1.0)
    update_over_gradient = quotient(layers["update_ratio_last"], layers["gradient_norm_last"])
    values: dict[str, float] = {
        "health_mean": mean_measured(health),
        "health_worst": float(np.nanmin(health)) if not np.isnan(health).all() else np.nan,
        "health_trend": mean_measured(trend),
        "stability": mean_measured(layers["stability"]),
        "seen_layers": float(seen.mean()),
        "update_over_gradient": _decade(_median_measured(update_over_gradient), 1.0),
        "loss_level": _decade(_of(latest, "loss"), _of(latest, "loss_level")),
        "loss_since_start": _since_start(loss),
        "loss_trend": _trend(loss),
        "loss_nonfinite": np.nan if latest is None else float(latest.loss_nonfinite > 0),
        "validation_since_start": _since_start(validation),
        "validation_trend": _trend(validation),
        "validation_gap": _decade(_last(validation), _last(loss)),
        "validation_accuracy": _last(_series(metrics, "validation_accuracy")),
        "learning_rate": _decade(_last(rate), float(rate[0]) if len(rate) else np.nan),
        "progress": _of(latest, "progress"),
        "has_snapshot": np.nan if latest is None else float(latest.snapshot_step is not None),
        "budget_used": float(np.clip(budget_used, 0.0, 1.0)),
        "since_adaptation": min(float(np.log10(1.0 + steps_since_adaptation)) / 5.0, 1.0)
        if steps_since_adaptation >= 0
        else np.nan,
    }
    return np.array([values[column.name] for column in GLOBAL_COLUMNS])


def mean_measured(values: Floats) -> float:
    """Mean of the values that are not NaN; NaN when all are."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")


def _median_measured(values: Floats) -> float:
    measured = values[~np.isnan(values)]
    return float(np.median(measured)) if len(measured) else float("nan")


def _mask(actions: Sequence[str]) -> list[bool]:
    return [action in actions for action in ACTIONS]


def _edge(name: str) -> int:
    return next(index for index, column in enumerate(EDGE_COLUMNS) if column.name == name)


def _decade(numerator: float, denominator: float) -> float:
    return float(decades(np.array([numerator]), denominator)[0])


def _of(metrics: PerformanceMetrics | None, name: str) -> float:
    value = None if metrics is None else getattr(metrics, name)
    return np.nan if value is None else float(value)


def _series(metrics: Sequence[PerformanceMetrics], name: str) -> Floats:
    values = [getattr(report, name) for report in metrics]
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _last(values: Floats) -> float:
    return float(values[-1]) if len(values) else np.nan


def _since_start(values: Floats) -> float:
    return _decade(float(values[-1]), float(values[0])) if len(values) > 1 else np.nan


def _trend(values: Floats) -> float:
    """Least-squares change of log10 over the last reports, in decades / 4, clipped to [-1, 1]."""
    recent = values[-TREND_REPORTS:]
    recent = recent[recent > 0]
    if len(recent) < MINIMUM_TREND:
        return np.nan
    position = np.linspace(-0.5, 0.5, len(recent))
    change = float(position @ np.log10(recent) / (position @ position))
    return float(np.clip(change, -DECADES, DECADES)) / DECADES


def _static_edges(
    topology: ModelTopology, edges: npt.NDArray[np.int64], levels: Floats, deepest: float
) -> Floats:
    nodes = topology.nodes
    columns: dict[str, Floats] = {}
    source, target = edges.T
    parameters = np.array([node.parameters for node in nodes], dtype=np.float64)
    total = parameters.sum()
    known = np.array([bool(node.shape) for node in nodes], dtype=bool)
    same_shape = np.array([nodes[s].shape == nodes[t].shape for s, t in edges], dtype=np.float64)
    columns["same_shape"] = np.where(known[source] & known[target], same_shape, np.nan)
    both = np.where(source == target, parameters[source], parameters[source] + parameters[target])
    columns["parameter_share"] = both / total if total else np.full(len(edges), np.nan)
    skip = (levels[target] - levels[source] - 1) / max(deepest, 1.0)
    columns["skip_length"] = np.clip(skip, -1.0, 1.0)
    columns["joins"] = np.array([edge.joins for edge in topology.edges], dtype=np.float64)
    columns["gradient_flow"] = np.full(len(edges), np.nan)
    columns["activation_scale"] = np.full(len(edges), np.nan)
    columns["same_type"] = np.array(
        [nodes[s].type == nodes[t].type for s, t in edges], dtype=np.float64
    )
    columns["direction"] = np.ones(len(edges))
    forward = np.stack([columns[column.name] for column in EDGE_COLUMNS], axis=1)
    backward = forward.copy()
    backward[:, _edge("direction")] = -1.0
    return np.concatenate([forward, backward])
