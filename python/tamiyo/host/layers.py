"""The layers of a traced model, by layer id: what the probe reads and the executor changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from tamiyo.contracts import AdaptationType, ModelTopology, TopologyEdge, TopologyNode
from tamiyo.host.modules import Ownership, activation_name, has_channel_axis, is_normalization
from tamiyo.host.recorder import FlowGraph

__all__ = ["Layers"]


@dataclass(frozen=True, slots=True)
class ActivationSite:
    """The activation that a layer's output goes through next."""

    name: str
    layer_id: int | None
    """Id of the activation module, `None` for a function that the model calls itself."""


class Layers:
    """Ties layer ids to modules, parameters and recorded data flow.

    Modules are looked up by path each time, because an adaptation may replace them.

    Args:
        model: The user's module (unwrapped).
        ownership: Which layer owns which parameter.
        flow: What a recorded forward pass showed; without one, layers come in the order of
            `named_modules()` and nothing is known about data flow.
    """

    def __init__(self, model: nn.Module, ownership: Ownership, flow: FlowGraph | None) -> None:
        self.model = model
        self.ownership = ownership
        self.flow = flow
        used = list(flow.layers) if flow is not None else []
        unused = [
            path
            for path in ownership.layers
            if path not in used and (flow is None or ownership.parameters[path])
        ]
        self.names: Sequence[str] = (*used, *unused)
        self.unused = frozenset(unused) if flow is not None else frozenset()
        self.ids = {name: layer_id for layer_id, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def module(self, layer_id: int) -> nn.Module:
        """The layer's module as it is now."""
        return self.model.get_submodule(self.names[layer_id])

    def parameters(self, layer_id: int) -> Sequence[nn.Parameter]:
        """The parameters that the layer owns (each belongs to one layer)."""
        return self.ownership.parameters.get(self.names[layer_id], ())

    @cached_property
    def successors(self) -> Sequence[Sequence[int]]:
        """Per layer the layers that read its output; empty without a recording."""
        targets: list[list[int]] = [[] for _ in self.names]
        for source, target in self.flow.edges if self.flow is not None else ():
            targets[self.ids[source]].append(self.ids[target])
        return targets

    @cached_property
    def predecessors(self) -> Sequence[Sequence[int]]:
        """Per layer the layers whose output it reads."""
        sources: list[list[int]] = [[] for _ in self.names]
        for source, targets in enumerate(self.successors):
            for target in targets:
                sources[target].append(source)
        return sources

    def sole_reader(self, layer_id: int) -> int | None:
        """The one layer that reads this layer's output, and nothing else on the way."""
        name = self.names[layer_id]
        if self.flow is None or (name in self.flow.outputs and self.successors[layer_id]):
            return None
        if len(self.successors[layer_id]) != 1:
            return None
        reader = self.successors[layer_id][0]
        return None if self.flow.edges[name, self.names[reader]].joins else reader

    def activation(self, layer_id: int) -> ActivationSite | None:
        """The activation that directly follows the layer, if exactly one does."""
        if self.flow is None:
            return None
        reader = self.sole_reader(layer_id)
        if reader is not None and (name := activation_name(self.module(reader))) is not None:
            return ActivationSite(name, reader)
        names = self.flow.activations.get(self.names[layer_id], set())
        ways = self.flow.successors(self.names[layer_id]).values()
        (name,) = names if len(names) == 1 else (None,)
        if name is None or not all(_passes(name, way.via) for way in ways):
            return None
        return ActivationSite(name, None)

    def activated(self, layer_id: int) -> tuple[int, ActivationSite | None]:
        """Where the units of a layer are finally seen, and through which activation.

        Follows normalisations, which keep the units apart: of `conv -> norm -> relu` the units
        of the convolution are seen after the activation. Returns the id of the layer whose
        output is to be read and the activation that it goes through.
        """
        reader = self.sole_reader(layer_id)
        if (
            self.activation(layer_id) is None
            and reader is not None
            and is_normalization(self.module(reader))
            and (site := self.activation(reader)) is not None
        ):
            return reader, site
        return layer_id, self.activation(layer_id)

    def channels_second(self, layer_id: int) -> bool:
        """Whether the units of the layer's output lie along axis 1 rather than the last one."""
        if has_channel_axis(self.module(layer_id)):
            return True
        sources = self.predecessors[layer_id]
        return bool(
            activation_name(self.module(layer_id)) is not None
            and sources
            and all(has_channel_axis(self.module(source)) for source in sources)
        )

    def topology(
        self,
        run: str,
        actions: Sequence[Sequence[AdaptationType]],
        model_actions: Sequence[AdaptationType],
        notes: Sequence[str] = (),
    ) -> ModelTopology:
        """The layers as they are announced to the controller."""
        nodes = []
        for layer_id, name in enumerate(self.names):
            shape = self.flow.shapes.get(name, ()) if self.flow is not None else ()
            site = self.activation(layer_id)
            nodes.append(
                TopologyNode(
                    layer_id=layer_id,
                    name=name,
                    type=_class_name(self.module(layer_id)),
                    parameters=sum(p.numel() for p in self.parameters(layer_id)),
                    shape=tuple(shape[1:]),
                    activation=site.name if site is not None else None,
                    actions=tuple(actions[layer_id]),
                )
            )
        flows = self.flow.edges if self.flow is not None else {}
        edges = tuple(
            TopologyEdge(source=self.ids[source], target=self.ids[target], joins=flow.joins)
            for (source, target), flow in flows.items()
        )
        if self.unused:
            notes = (*notes, "not used in the recorded step: " + ", ".join(sorted(self.unused)))
        return ModelTopology(
            run=run,
            nodes=tuple(nodes),
            edges=edges,
            actions=tuple(model_actions),
            notes=tuple(notes),
        )


def _passes(activation: str, via: frozenset[str]) -> bool:
    aliases = {"log_sigmoid": "log_sigmoid_forward", "rrelu": "rrelu_with_noise"}
    return aliases.get(activation, activation) in via


def _class_name(module: nn.Module) -> str:
    name = type(module).__name__
    # A parametrised module's class is generated; its base is what the user wrote.
    return type(module).__bases__[0].__name__ if hasattr(module, "parametrizations") else name
