"""The columns of `tamiyo.graph.schema` for many hosts at once.

`tamiyo.graph.features` makes them for one live model; a test holds the two to each other. Values
are NaN where they are missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.graphs import Graphs
from tamiyo.envs.training.medians import row_median
from tamiyo.envs.training.reports import ReportHistory
from tamiyo.graph.features import HEALTHY_UPDATE_RATIO, MINIMUM_TREND, TREND_REPORTS
from tamiyo.graph.scales import DECADES, Floats, decades, quotient
from tamiyo.graph.schema import EDGE_COLUMNS, GLOBAL_COLUMNS, NODE_COLUMNS

__all__ = ["edge_features", "global_features", "node_features"]


def node_features(graphs: Graphs, layers: Mapping[str, Floats], parameters: Floats) -> Floats:
    """[H, N, 16].

    Args:
        graphs: The graphs.
        layers: Aggregates [H, N] (`LayerHistory.aggregates`).
        parameters: [H, N], scalar parameters of each node.
    """
    gradient = layers["gradient_norm_last"]
    missing = np.full(gradient.shape, np.nan)
    zero = np.where(graphs.node_mask, 0.0, np.nan)
    columns: dict[str, Floats] = {
        "health": layers["health_score_mean"],
        "measured_share": layers["measured_share"],
        "activation_variance": decades(
            layers["activation_variance_last"], layers["activation_variance_start"], compares=True
        ),
        "dead_ratio": layers["dead_neuron_ratio_last"],
        "correlation": layers["avg_correlation_last"],
        "saturation": layers["saturation_last"],
        "gradient_norm": decades(gradient, _positive_median(gradient)[:, None]),
        "update_ratio": decades(layers["update_ratio_last"], HEALTHY_UPDATE_RATIO),
        "latency": missing,
        "error_rate": np.minimum(layers["error_rate"], 1.0),
        "health_trend": np.clip(layers["health_trend"], -1.0, 1.0),
        "stability": layers["stability"],
        "occupied_seeds": missing,
        "ready": zero,
        "parameters": np.minimum(np.log10(1.0 + parameters) / 8.0, 1.0),
        "depth": graphs.depth,
    }
    stacked = np.stack([columns[column.name] for column in NODE_COLUMNS], axis=-1)
    return np.where(graphs.node_mask[..., None], stacked, np.nan)


def edge_features(
    graphs: Graphs,
    layers: Mapping[str, Floats],
    parameters: Floats,
    types: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
) -> Floats:
    """[H, E, 8]; see `node_features`, with the layer types and widths [H, N] of the nodes."""
    source, target = graphs.edge_index[:, 0], graphs.edge_index[:, 1]

    def both(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return np.take_along_axis(values, source, 1), np.take_along_axis(values, target, 1)

    with np.errstate(invalid="ignore"):
        deviation = np.sqrt(layers["activation_variance_last"])
    counts = np.nan_to_num(parameters)
    total = counts.sum(axis=1, keepdims=True)
    columns: dict[str, Floats] = {
        "same_shape": np.equal(*both(widths)).astype(np.float64),
        "parameter_share": np.add(*both(counts)) / total,
        "skip_length": np.clip(graphs.skip_length, -1.0, 1.0),
        "joins": graphs.joins,
        "gradient_flow": decades(*both(layers["gradient_norm_last"]), compares=True),
        "activation_scale": decades(*both(deviation), compares=True),
        "same_type": np.equal(*both(types)).astype(np.float64),
        "direction": graphs.forward,
    }
    stacked = np.stack([columns[column.name] for column in EDGE_COLUMNS], axis=-1)
    return np.where(graphs.edge_mask[..., None], stacked, np.nan)


def global_features(
    layers: Mapping[str, Floats],
    seen: npt.NDArray[np.bool_],
    reports: ReportHistory,
    *,
    budget_used: Floats,
    since_adaptation: Floats,
) -> Floats:
    """[H, G].

    Args:
        layers: Aggregates [H, N].
        seen: [H, N], nodes that were measured.
        reports: What the hosts have reported.
        budget_used: [H], share of the adaptations that are allowed.
        since_adaptation: [H], optimiser steps; NaN where there was none.
    """
    health, gradient = layers["health_score_mean"], layers["gradient_norm_last"]
    update_over_gradient = quotient(layers["update_ratio_last"], gradient)
    loss, held_out, latest = reports.loss, reports.held_out_loss, reports.latest
    nothing = np.full(reports.hosts, np.nan)
    oldest_rate = _first_known(reports.learning_rate, nothing)
    trend = np.clip(layers["health_trend"], -1.0, 1.0)
    values: dict[str, Floats] = {
        "health_mean": _mean(health),
        "health_worst": _least(health),
        "health_trend": _mean(trend),
        "stability": _mean(layers["stability"]),
        "seen_layers": seen.sum(axis=1) / np.maximum(seen.sum(axis=1), 1),
        "update_over_gradient": decades(row_median(update_over_gradient), 1.0),
        "loss_level": decades(latest["loss"], latest["level"]),
        "loss_since_start": _since_start(loss, nothing),
        "loss_trend": _trend(loss, nothing),
        "loss_nonfinite": np.minimum(latest["nonfinite"], 1.0),
        "validation_since_start": _since_start(held_out, nothing),
        "validation_trend": _trend(held_out, nothing),
        "validation_gap": decades(_last_known(held_out, nothing), _last_known(loss, nothing)),
        "validation_accuracy": latest["accuracy"],
        "learning_rate": decades(latest["learning_rate"], oldest_rate),
        "progress": latest["progress"],
        "has_snapshot": latest["snapshot"],
        "budget_used": np.clip(budget_used, 0.0, 1.0),
        "since_adaptation": np.minimum(np.log10(1.0 + since_adaptation) / 5.0, 1.0),
    }
    return np.stack([values[column.name] for column in GLOBAL_COLUMNS], axis=-1)


def _positive_median(values: Floats) -> Floats:
    return row_median(np.where(values > 0, values, np.nan))


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    return quotient(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _least(values: Floats) -> Floats:
    least = np.where(np.isnan(values), np.inf, values).min(axis=1)
    return np.where(np.isinf(least), np.nan, least)


def _last_known(series: Sequence[Floats], missing: Floats) -> Floats:
    return _first_known(series[::-1], missing)


def _first_known(series: Sequence[Floats], missing: Floats) -> Floats:
    found = missing
    for values in series:
        found = np.where(np.isnan(found), values, found)
        if not np.isnan(found).any():
            break
    return found


def _since_start(series: Sequence[Floats], missing: Floats) -> Floats:
    if not series:
        return missing
    known = sum(~np.isnan(values) for values in series)
    change = decades(_last_known(series, missing), _first_known(series, missing))
    return np.where(known > 1, change, np.nan)


def _trend(series: Sequence[Floats], missing: Floats) -> Floats:
    """Least-squares change of log10 over the last known reports, for each host by itself."""
    if not series:
        return missing
    values = np.stack(series, axis=1)
    known = ~np.isnan(values)
    # Places count among the known ones, the newest of which are used.
    from_end = np.cumsum(known[:, ::-1], axis=1)[:, ::-1]
    used = known & (from_end <= TREND_REPORTS) & (values > 0)
    count = used.sum(axis=1)
    place = (np.cumsum(used, axis=1) - 1) / np.maximum(count - 1, 1)[:, None] - 0.5
    position = np.where(used, place, 0.0)
    logs = np.log10(np.where(used, values, 1.0))
    change = quotient((position * logs).sum(axis=1), (position * position).sum(axis=1))
    return np.where(count >= MINIMUM_TREND, np.clip(change, -DECADES, DECADES) / DECADES, np.nan)
