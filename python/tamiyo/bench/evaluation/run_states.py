"""What a controller would see of the runs of an environment: real `ModelGraphState`s.

The environment keeps the per-layer aggregates and the reports that a live collector holds, for all
runs at once; here they become a `SignalBatch` for each run, of which `ModelGraphBuilder` makes the
state. A test holds the graph that comes of it to the environment's own observation.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import (
    AdaptationType,
    Flag,
    ModelTopology,
    PerformanceMetrics,
    SignalBatch,
)
from tamiyo.contracts.topology import TopologyEdge, TopologyNode
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.graphs import ACTIVATION_CLASSES, data_flow
from tamiyo.envs.training.hosts import ACTIVATIONS
from tamiyo.envs.training.measurements import parameter_counts
from tamiyo.graph import ModelGraphBuilder, ModelGraphState
from tamiyo.graph.builder import AGGREGATE_COUNTS, AGGREGATE_MEASURES
from tamiyo.graph.schema import ACTIONS

__all__ = ["RunStates"]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

CLASSES = [ACTIVATION_CLASSES[activation] for activation in ACTIVATIONS]
NO_SIGNALS = SignalBatch.from_signals(())


class RunStates:
    """The states of the H runs of one episode, from its first decision on.

    Args:
        episode: In this process, at its first decision.
        name: What the names of the runs begin with.
    """

    def __init__(self, episode: Episode, name: str) -> None:
        self._episode = episode
        self._names = [f"{name}/{host}" for host in range(len(episode.scenarios))]
        # A builder remembers one topology.
        self._builders = [ModelGraphBuilder() for _ in self._names]
        self._topologies: dict[int, tuple[tuple[Any, ...], ModelTopology]] = {}
        self._reports: list[list[PerformanceMetrics]] = [[] for _ in self._names]
        self._adaptations = episode.adaptations.copy()
        self._read_at = self._adapted_at = np.full(len(self._names), np.nan)

    def read(self) -> list[ModelGraphState]:
        """The present states; to be called once at every decision."""
        episode = self._episode
        readings = episode.history.readings
        layers = episode.history.aggregates()
        # Without loss scaling no reading of a sound run has an error.
        broken = layers["error_count_last"] > 0
        since = self._since_adaptation()
        parameters = parameter_counts(episode.cohort, broken.shape[1])
        widths = episode.graphs.widths(episode.cohort)
        kinds = episode.cohort.kinds.cpu().numpy()
        masks = episode.masks()
        states = []
        for host, builder in enumerate(self._builders):
            self._report(host)
            topology = self._topology(host, kinds, widths[host], parameters[host], masks)
            aggregates = self._aggregates(host, layers, broken[host], readings)
            batch = SignalBatch(
                NO_SIGNALS.columns, aggregates, topology, tuple(self._reports[host])
            )
            used = float(episode.budget_used[host])
            states.append(
                builder.build_model_graph(
                    batch, budget_used=used, steps_since_adaptation=float(since[host])
                )
            )
        return states

    def _since_adaptation(self) -> Floats:
        """[H]: optimiser steps since the last adaptation; NaN where there was none."""
        count, step = self._episode.adaptations.copy(), float(self._episode.cohort.steps)
        self._adapted_at = np.where(count > self._adaptations, self._read_at, self._adapted_at)
        self._adaptations, self._read_at = count, np.full(len(count), step)
        return step - self._adapted_at

    def _aggregates(
        self,
        host: int,
        layers: Mapping[str, Floats],
        broken: npt.NDArray[np.bool_],
        readings: int,
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns [N] of one run, as the core names them."""
        nodes = 2 * self._episode.scenarios[host].spec.hidden + 1
        step = self._episode.cohort.steps
        columns: dict[str, npt.NDArray[Any]] = {
            name: layers[name][host, :nodes] if name in layers else np.full(nodes, np.nan)
            for name in AGGREGATE_MEASURES
        }
        columns |= {name: np.zeros(nodes, np.int64) for name in AGGREGATE_COUNTS}
        return columns | {
            "layer_id": np.arange(nodes),
            "count": np.full(nodes, readings),
            "step": np.full(nodes, step),
            "timestamp": np.full(nodes, float(step)),
            # The environment's trend is over its whole history already.
            "span_seconds": np.ones(nodes),
            "ready_share": np.zeros(nodes),
            "nonfinite_last": np.where(broken[:nodes], int(Flag.NONFINITE_WEIGHT), 0),
        }

    def _report(self, host: int) -> None:
        """Add the newest report of a run, if there is one."""
        reports, step = self._episode.reports, self._episode.cohort.steps
        if not reports.reported[host]:
            return
        said = {name: _known(values[host]) for name, values in reports.latest.items()}
        self._reports[host].append(
            PerformanceMetrics(
                run=self._names[host],
                step=step,
                timestamp=float(step),
                loss=said["loss"],
                loss_level=said["level"],
                loss_nonfinite=int(said["nonfinite"] or 0),
                validation_loss=said["held_out_loss"],
                validation_accuracy=said["accuracy"],
                learning_rate=said["learning_rate"],
                progress=said["progress"],
                # Which step it is of makes no difference, only that there is one.
                snapshot_step=step if said["snapshot"] else None,
            )
        )

    def _topology(
        self,
        host: int,
        kinds: npt.NDArray[np.int64],
        widths: npt.NDArray[np.int64],
        parameters: Floats,
        masks: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    ) -> ModelTopology:
        """The topology with what is legal now; the same object while nothing changes."""
        episode = self._episode
        spec, rows = episode.scenarios[host].spec, episode.cohort.layout.row_of[host]
        own = kinds[rows[: spec.hidden]]
        layers, model = masks[0][host], masks[1][host]
        key = (own.tobytes(), widths.tobytes(), layers.tobytes(), model.tobytes())
        if host in self._topologies and self._topologies[host][0] == key:
            return self._topologies[host][1]
        nodes = [
            TopologyNode(
                layer_id=node,
                name=f"activations.{node // 2}" if node % 2 else f"layers.{node // 2}",
                type=CLASSES[own[node // 2]] if node % 2 else "Linear",
                parameters=int(parameters[node]),
                shape=(int(widths[node]),),
                actions=_actions(layers[node]),
            )
            for node in range(2 * spec.hidden + 1)
        ]
        edges = [
            TopologyEdge(source=source, target=target, joins=joins)
            for source, target, joins in data_flow(spec)
        ]
        topology = ModelTopology(
            run=self._names[host], nodes=tuple(nodes), edges=tuple(edges), actions=_actions(model)
        )
        self._topologies[host] = key, topology
        return topology


def _actions(mask: npt.NDArray[np.bool_]) -> tuple[AdaptationType, ...]:
    return tuple(action for action, legal in zip(ACTIONS, mask, strict=True) if legal)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
