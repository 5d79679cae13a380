"""The graph layer by layer, for people and reports: who is ill, and who is the likely culprit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tamiyo.contracts import AdaptationType, Flag, TopologyNode
from tamiyo.contracts.signals import MEASUREMENTS
from tamiyo.graph.schema import LAYER_TYPES, layer_type_index
from tamiyo.graph.state import ModelGraphState

__all__ = ["LayerNode", "ModelGraphAnalyzer"]

CHANNELS_FIRST = {"conv", "conv_transpose", "batch_norm", "group_norm"}
FEATURES_LAST = {"linear", "layer_norm", "embedding", "attention", "recurrent"}
TYPE_NAMES = tuple(LAYER_TYPES)
NONFINITE = Flag.NONFINITE_ACTIVATION | Flag.NONFINITE_GRADIENT | Flag.NONFINITE_WEIGHT


@dataclass(frozen=True, slots=True)
class LayerNode:
    """One layer with what was measured of it. NaN means not measured."""

    layer_id: int
    name: str
    type: str
    """Class name of the module; empty where no topology says it."""
    parameters: int | None
    """Number of scalar parameters; `None` where no topology says it."""
    health: float
    """Last health score, in [0, 1]."""
    health_trend: float
    """Slope of the health score over the window, 1/s."""
    stability: float
    measurements: Mapping[str, float]
    """Last value of every measurement, by its name in the signal table."""
    nonfinite: Flag
    """What was NaN or infinite in the last signal."""
    step: int | None
    """Optimiser step of the last signal; `None` without one."""
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    actions: tuple[AdaptationType, ...]


class ModelGraphAnalyzer:
    """Answers questions about one state; everything is computed on first use.

    Args:
        state: The state to look at.
        health_threshold: Last health score below which a layer is problematic, in [0, 1].
    """

    def __init__(self, state: ModelGraphState, health_threshold: float = 0.3) -> None:
        self.state = state
        self.health_threshold = health_threshold

    @cached_property
    def layers(self) -> Mapping[int, LayerNode]:
        """Every layer by its id."""
        return {
            layer_id: self._layer(index, layer_id)
            for index, layer_id in enumerate(self.state.layer_ids.tolist())
        }

    @cached_property
    def problematic(self) -> Sequence[LayerNode]:
        """Layers below the health threshold or with non-finite values, worst first."""
        ill = [
            layer
            for layer in self.layers.values()
            if layer.health < self.health_threshold or layer.nonfinite
        ]
        return sorted(ill, key=lambda layer: (-bool(layer.nonfinite), layer.health))

    @cached_property
    def bottlenecks(self) -> Sequence[LayerNode]:
        """Layers at most a quarter as wide as both a layer before and a layer after them."""
        return [layer for layer in self.layers.values() if self._is_bottleneck(layer)]

    def upstream_suspects(self, layer_id: int) -> Sequence[LayerNode]:
        """Problematic layers that `layer_id` depends on and that have no excuse themselves.

        A sick layer spoils the input of everything after it, so the likely culprits are the
        problematic layers, `layer_id` included, above which nothing is problematic.
        """
        ill = {layer.layer_id for layer in self.problematic}
        upstream = self.ancestors(layer_id) | {layer_id}
        suspects = [
            candidate
            for candidate in upstream & ill
            # On a cycle every layer is above every other; ids follow the order of first use.
            if not any(above < candidate for above in self.ancestors(candidate) & ill)
        ]
        return [self.layers[suspect] for suspect in sorted(suspects)]

    def critical_path(self) -> Sequence[LayerNode]:
        """The chain of layers with the largest summed forward latency, in data-flow order.

        Layers without a measured latency neither add to a path nor break it. Empty when none was
        measured or the data flow is unknown.
        """
        latency = {
            layer_id: layer.measurements["execution_latency"]
            for layer_id, layer in self.layers.items()
        }
        if self.state.topology is None or np.isnan(list(latency.values())).all():
            return []
        cost: dict[int, float] = {}
        came_from: dict[int, int | None] = {}
        for layer_id, layer in self.layers.items():
            before = [source for source in layer.predecessors if source < layer_id]
            best = max(before, key=cost.__getitem__, default=None)
            own = 0.0 if np.isnan(latency[layer_id]) else latency[layer_id]
            cost[layer_id] = own + (0.0 if best is None else cost[best])
            came_from[layer_id] = best
        path: list[LayerNode] = []
        current: int | None = max(cost, key=cost.__getitem__)
        while current is not None:
            path.append(self.layers[current])
            current = came_from[current]
        return path[::-1]

    def ancestors(self, layer_id: int) -> set[int]:
        """Ids of the layers whose output reaches `layer_id`; itself only on a cycle."""
        return self._reach(self.layers[layer_id].predecessors, upstream=True)

    def descendants(self, layer_id: int) -> set[int]:
        """Ids of the layers that the output of `layer_id` reaches; itself only on a cycle."""
        return self._reach(self.layers[layer_id].successors, upstream=False)

    def _reach(self, start: Iterable[int], *, upstream: bool) -> set[int]:
        reached: set[int] = set()
        frontier = list(start)
        while frontier:
            current = frontier.pop()
            if current not in reached:
                reached.add(current)
                layer = self.layers[current]
                frontier.extend(layer.predecessors if upstream else layer.successors)
        return reached

    def _layer(self, index: int, layer_id: int) -> LayerNode:
        raw, topology = self.state.layers, self.state.topology
        node = None if topology is None else topology.nodes[index]
        return LayerNode(
            layer_id=layer_id,
            name=f"layer {layer_id}" if node is None else node.name,
            type="" if node is None else node.type,
            parameters=None if node is None else node.parameters,
            health=float(raw["health_score_last"][index]),
            health_trend=float(raw["health_trend"][index]),
            stability=float(raw["stability"][index]),
            measurements={name: float(raw[f"{name}_last"][index]) for name in MEASUREMENTS},
            nonfinite=Flag(int(raw["nonfinite_last"][index])) & NONFINITE,
            step=int(raw["step"][index]) if self.state.seen[index] else None,
            predecessors=tuple(self._neighbours[0].get(layer_id, ())),
            successors=tuple(self._neighbours[1].get(layer_id, ())),
            actions=() if node is None else node.actions,
        )

    @cached_property
    def _neighbours(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        before: dict[int, list[int]] = {}
        after: dict[int, list[int]] = {}
        for edge in () if self.state.topology is None else self.state.topology.edges:
            before.setdefault(edge.target, []).append(edge.source)
            after.setdefault(edge.source, []).append(edge.target)
        return before, after

    def _is_bottleneck(self, layer: LayerNode) -> bool:
        before = [self._width(source) for source in layer.predecessors]
        after = [self._width(target) for target in self._owners_after(layer)]
        width = self._width(layer.layer_id)
        return width > 0 and 4 * width <= min(max(before, default=0), max(after, default=0))

    def _owners_after(self, layer: LayerNode) -> list[int]:
        """The next layers that own parameters; an activation in between is as narrow as this."""
        owners: list[int] = []
        visited: set[int] = set()
        frontier = list(layer.successors)
        while frontier:
            current = self.layers[frontier.pop()]
            if current.layer_id in visited:
                continue
            visited.add(current.layer_id)
            if current.parameters and self._width(current.layer_id) != self._width(layer.layer_id):
                owners.append(current.layer_id)
            else:
                frontier.extend(current.successors)
        return owners

    def _width(self, layer_id: int) -> int:
        """Number of units or channels; 0 when unknown."""
        if self.state.topology is None:
            return 0
        return _width(self.state.topology.nodes[layer_id])


def _width(node: TopologyNode) -> int:
    if not node.shape:
        return 0
    kind = TYPE_NAMES[layer_type_index(node.type)]
    image = len(node.shape) >= 3 and kind not in FEATURES_LAST
    return node.shape[0] if image or kind in CHANNELS_FIRST else node.shape[-1]
