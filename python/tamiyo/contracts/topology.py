"""The model as the host sees it: layers as nodes, data flow as edges."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from tamiyo.contracts.decisions import AdaptationType
from tamiyo.contracts.wire import ControlMessage

__all__ = ["ModelTopology", "TopologyEdge", "TopologyNode"]

LayerId = Annotated[int, Field(ge=0, lt=2**32)]


class TopologyNode(ControlMessage):
    """One layer: a module that owns parameters, or is an activation or a normalisation."""

    layer_id: LayerId
    """Dense id, 0..N-1 in order of first use; equal in every process that builds the same model."""
    name: str
    """Dotted module path, as in `named_modules()`."""
    type: str
    """Class name of the module, for example `Linear`."""
    parameters: int = Field(default=0, ge=0)
    """Number of scalar parameters that the layer owns."""
    shape: tuple[int, ...] = ()
    """Shape of one output without its batch dimension."""
    activation: str | None = None
    """Name of the activation that follows directly, if one does."""
    actions: tuple[AdaptationType, ...] = ()
    """Adaptations that the host can apply to this layer."""


class TopologyEdge(ControlMessage):
    """Data that flows from one layer's output into another layer's input."""

    source: LayerId
    target: LayerId
    joins: bool = False
    """Whether it meets other data on the way (a residual sum, a concatenation)."""


class ModelTopology(ControlMessage):
    """A traced model. Cycles are legal: a layer that is called twice may feed itself.

    Raises:
        WireError, ValueError: ids that are not 0..N-1, names that repeat, edges without ends.
    """

    run: str
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...] = ()
    actions: tuple[AdaptationType, ...] = ()
    """Adaptations that the host can apply to the model as a whole."""
    notes: tuple[str, ...] = ()
    """What could not be traced, in words."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if [node.layer_id for node in self.nodes] != list(range(len(self.nodes))):
            raise ValueError("layer ids must be 0..N-1, in order")
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise ValueError("layer names must be unique")
        if any(max(edge.source, edge.target) >= len(self.nodes) for edge in self.edges):
            raise ValueError("an edge ends at a layer that does not exist")
        return self

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def by_name(self) -> Mapping[str, TopologyNode]:
        """Nodes by module path."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def depths(self) -> Sequence[int]:
        """Per layer, the longest path of forward edges that leads to it.

        Ids follow the order of first use, so an edge to an equal or smaller id closes a cycle and
        does not count.
        """
        depths = [0] * len(self.nodes)
        for edge in sorted(self.edges, key=lambda edge: edge.target):
            if edge.source < edge.target:
                depths[edge.target] = max(depths[edge.target], depths[edge.source] + 1)
        return depths

    def successors(self, layer_id: int) -> list[int]:
        """Layers that the output of `layer_id` flows into."""
        return [edge.target for edge in self.edges if edge.source == layer_id]

    def predecessors(self, layer_id: int) -> list[int]:
        """Layers whose output flows into `layer_id`."""
        return [edge.source for edge in self.edges if edge.target == layer_id]
