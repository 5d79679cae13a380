"""The graphs of a cohort's hosts, padded: which layers there are, and how data flows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import ACTIVATIONS, HostSpec
from tamiyo.graph.schema import layer_type_index

__all__ = ["ACTIVATION_CLASSES", "Graphs", "data_flow", "most_edges", "most_nodes"]

ACTIVATION_CLASSES = dict(
    zip(ACTIVATIONS, ("ReLU", "LeakyReLU", "ELU", "Tanh", "Sigmoid"), strict=True)
)
"""The module class of each activation."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LINEAR = layer_type_index("Linear")
KIND_TYPES = np.array([layer_type_index(name) for name in ACTIVATION_CLASSES.values()])


def data_flow(spec: HostSpec) -> list[tuple[int, int, bool]]:
    """Edges (source, target, joins) between the nodes of a host, as tracing it finds them.

    A sum is read where all of its terms are: a linear layer behind residual blocks reads the
    activations of all of them.
    """
    edges = [(2 * layer, 2 * layer + 1, False) for layer in range(spec.hidden)]
    for layer in range(1, spec.layers):
        read = {layer - 1}
        if spec.wiring == "residual":
            read = set(range(layer))
        elif spec.wiring == "skip" and layer == spec.hidden:
            read |= {0}
        edges += [(2 * source + 1, 2 * layer, len(read) > 1) for source in sorted(read)]
    return edges


def most_nodes(hidden: int) -> int:
    """Nodes of a host with so many hidden layers."""
    return 2 * hidden + 1


def most_edges(hidden: int) -> int:
    """Most edges of a host with so many hidden layers, those against the data included."""
    return 2 * (hidden + hidden * (hidden + 1) // 2)


@dataclass(frozen=True, eq=False)
class Graphs:
    """H graphs of up to N nodes and E edges; every data-flow edge appears twice, once each way."""

    node_mask: Bools
    """[H, N]."""
    depth: npt.NDArray[np.float64]
    """[H, N], in [0, 1]; NaN where there is no node."""
    edge_mask: Bools
    """[H, E]."""
    edge_index: Ints
    """[H, 2, E]; 0 where there is no edge."""
    joins: npt.NDArray[np.float64]
    """[H, E]."""
    forward: npt.NDArray[np.float64]
    """[H, E]: 1 with the data, -1 against it."""
    skip_length: npt.NDArray[np.float64]
    """[H, E]."""

    @classmethod
    def of(cls, specs: Sequence[HostSpec], nodes: int, edges: int) -> "Graphs":
        """The graphs of some hosts."""
        hosts = len(specs)
        index = np.zeros((hosts, 2, edges), np.int64)
        mask = np.zeros((hosts, edges), bool)
        joins, forward = np.zeros((hosts, edges)), np.zeros((hosts, edges))
        for host, spec in enumerate(specs):
            flow = np.array(data_flow(spec))
            count = len(flow)
            both = slice(0, 2 * count)
            index[host, :, both] = np.concatenate([flow[:, :2], flow[:, 1::-1]]).T
            joins[host, both] = np.tile(flow[:, 2], 2)
            forward[host, :count], forward[host, count : 2 * count] = 1.0, -1.0
            mask[host, both] = True
        deepest = np.array([2.0 * spec.hidden for spec in specs])[:, None]
        exists = np.arange(nodes) <= deepest
        skip = (np.abs(index[:, 1] - index[:, 0]) - 1) / deepest
        return cls(
            node_mask=exists,
            depth=np.where(exists, np.arange(nodes) / deepest, np.nan),
            edge_mask=mask,
            edge_index=index,
            joins=joins,
            forward=forward,
            skip_length=skip,
        )

    def layer_types(self, cohort: Cohort) -> Ints:
        """[H, N]: index into `LAYER_TYPES`, 0 where there is no node."""
        layout = cohort.layout
        types = np.where(self.node_mask, LINEAR, 0)
        hidden = slice(0, layout.hidden_rows)
        kinds = cohort.kinds.cpu().numpy()
        types[layout.host_of[hidden], 2 * layout.layer_of[hidden] + 1] = KIND_TYPES[kinds]
        return types

    def widths(self, cohort: Cohort) -> Ints:
        """[H, N]: units of each node, 0 where there is none."""
        layout = cohort.layout
        hidden, host, layer = layout.hidden_rows, layout.host_of, layout.layer_of
        units = cohort.units.sum(dim=1).cpu().numpy()
        outputs = np.concatenate([units, [spec.dataset.classes for spec in cohort.specs]])
        widths = np.zeros(self.node_mask.shape, np.int64)
        widths[host, 2 * layer] = outputs
        widths[host[:hidden], 2 * layer[:hidden] + 1] = units
        return widths
