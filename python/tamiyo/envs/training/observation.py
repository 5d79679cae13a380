"""What the policy sees of every host: padded graphs, as `tamiyo.envs.observations` has them."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.envs.observations import Observation
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.features import edge_features, global_features, node_features
from tamiyo.envs.training.graphs import Graphs
from tamiyo.envs.training.history import LayerHistory
from tamiyo.envs.training.measurements import parameter_counts
from tamiyo.envs.training.reports import ReportHistory

__all__ = ["observe"]

Floats: TypeAlias = npt.NDArray[np.float64]


def observe(
    cohort: Cohort,
    graphs: Graphs,
    history: LayerHistory,
    reports: ReportHistory,
    *,
    budget_used: Floats,
    since_adaptation: Floats,
    action_mask: npt.NDArray[np.bool_],
    model_action_mask: npt.NDArray[np.bool_],
) -> Observation:
    """The observation of every host, by the names of `tamiyo.envs.observations`.

    Args:
        cohort: The hosts.
        graphs: Their graphs.
        history: What was measured.
        reports: What they have reported.
        budget_used: [H], share of the adaptations that are allowed.
        since_adaptation: [H], optimiser steps since the last one; NaN where there was none.
        action_mask: [H, N, types].
        model_action_mask: [H, types].
    """
    layers = history.aggregates()
    parameters = parameter_counts(cohort, graphs.node_mask.shape[1])
    types, widths = graphs.layer_types(cohort), graphs.widths(cohort)
    x, x_measured = _masked(node_features(graphs, layers, parameters))
    edge_attr, edge_measured = _masked(edge_features(graphs, layers, parameters, types, widths))
    columns = global_features(
        layers,
        graphs.node_mask,
        reports,
        budget_used=budget_used,
        since_adaptation=since_adaptation,
    )
    values, values_measured = _masked(columns)
    return {
        "x": x,
        "x_measured": x_measured,
        "node_mask": graphs.node_mask.astype(np.int8),
        "layer_type": types,
        "edge_index": graphs.edge_index,
        "edge_attr": edge_attr,
        "edge_measured": edge_measured,
        "edge_mask": graphs.edge_mask.astype(np.int8),
        "global_features": values,
        "global_measured": values_measured,
        "action_mask": action_mask.astype(np.int8),
        "model_action_mask": model_action_mask.astype(np.int8),
    }


def _masked(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    measured = np.isfinite(values)
    return np.where(measured, values, 0.0).astype(np.float32), measured.astype(np.int8)
