"""Records data flow between layers during one forward pass, without touching what it computes.

A dispatch mode sees every ATen operator below autograd. Each tensor carries its *origin*: the layer
calls whose output it holds, and which operators it met on the way. Inside a leaf layer everything
belongs to that layer; outside, an operator that mixes data with a parameter is a layer of its own
(an attention's packed projection, a class token), and any other operator passes origins on.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from tamiyo.host.modules import ATEN_ACTIVATIONS, Ownership

__all__ = ["INPUT", "Flow", "FlowGraph", "FlowRecorder"]

INPUT = "<input>"
"""Name under which the model's own inputs are origins; no module path can be equal to it."""


class Call(NamedTuple):
    """The n-th call of a layer, so that a layer called twice can feed itself."""

    layer: str
    number: int


@dataclass(frozen=True, slots=True)
class Flow:
    """How data came from one layer to another."""

    joins: bool = False
    """Whether it met other data on the way."""
    via: frozenset[str] = frozenset()
    """ATen operators outside any layer that it passed through, without overload names; first
    `output 1` where it is the second tensor of numbers that the layer returned, and so on."""

    def merged(self, other: "Flow") -> "Flow":
        """Both ways together, for two paths between the same layers."""
        return Flow(self.joins or other.joins, self.via | other.via)


@dataclass(slots=True)
class FlowGraph:
    """What one forward pass showed. Layers are named by module path, in order of first use."""

    layers: dict[str, int] = field(default_factory=dict)
    """Layers used, with the number of calls."""
    edges: dict[tuple[str, str], Flow] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    """Layers whose output leaves the model, whatever it passed through on the way."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of a layer's first output tensor in its last call, batch dimension included."""
    activations: dict[str, set[str]] = field(default_factory=dict)
    """Functional activations applied to a layer's output before it met anything else."""
    stateful: set[str] = field(default_factory=set)
    """Recurrent layers that were given an initial state."""

    def successors(self, layer: str) -> dict[str, Flow]:
        """Layers that read the output of `layer`, and how it reaches them."""
        return {target: flow for (source, target), flow in self.edges.items() if source == layer}


@dataclass(frozen=True, slots=True)
class _Origin:
    calls: Mapping[Call, Flow] = field(default_factory=dict)
    owners: frozenset[str] = frozenset()
    """Owners of the parameters that a tensor without data was computed from."""


_NOTHING = _Origin()


class FlowRecorder(TorchDispatchMode):
    """Fills `graph` while it is the active dispatch mode. `enter` and `leave` bracket layer calls.

    An error of the recorder itself ends the recording and is kept in `failure`; the operators
    that it watches run unchanged in any case.
    """

    def __init__(self, model: torch.nn.Module, ownership: Ownership) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = FlowGraph()
        self.failure: Exception | None = None
        self._ownership = ownership
        self._buffers = {id(buffer) for buffer in model.buffers()}
        self._stack: list[Call] = []
        self._calls: Counter[str] = Counter()
        self._clock = count()
        # Weak keys: a recording must not keep a step's activations alive.
        self._origins: Any = WeakTensorKeyDictionary()
        # A freed storage's address is soon used again, so a written storage is known by weak
        # reference, which also keeps the address from being reused.
        self._storages: dict[int, tuple[StorageWeakRef, int, _Origin]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.failure is None:
            try:
                self._record(func, (args, kwargs), result)
            except Exception as error:
                self.failure = error
        return result

    def begin(self, inputs: Any) -> None:
        """The model's inputs are origins too, else `x + f(x)` would not look like a join."""
        for number, tensor in enumerate(_tensors(inputs)):
            self._assign(tensor, _Origin({Call(INPUT, number): Flow()}))

    def end(self, outputs: Any) -> None:
        """Note which layers' data leaves the model."""
        for tensor in _tensors(outputs):
            origin = self._origin(tensor)
            self.graph.outputs |= {call.layer for call in origin.calls if call.layer != INPUT}

    def enter(self, layer: str, *, with_state: bool = False) -> None:
        """A leaf layer is called, a recurrent one perhaps with an initial state."""
        self._stack.append(self._use(layer))
        if with_state:
            self.graph.stateful.add(layer)

    def leave(self, output: Any) -> None:
        """The leaf layer that was entered last returns `output` (`None` if it raised)."""
        call, flow, numbers = self._stack.pop(), Flow(), 0
        for index, tensor in enumerate(_tensors(output)):
            if index == 0:
                self.graph.shapes[call.layer] = tuple(tensor.shape)
            if tensor.is_floating_point():
                flow = Flow(via=frozenset((f"output {numbers}",))) if numbers else Flow()
                numbers += 1
            if id(tensor) not in self._buffers:
                self._assign(tensor, _Origin({call: flow}))

    def _use(self, layer: str) -> Call:
        self._calls[layer] += 1
        self.graph.layers[layer] = self._calls[layer]
        return Call(layer, self._calls[layer])

    def _record(self, func: Any, inputs: Any, result: Any) -> None:
        data: list[_Origin] = []
        owners: set[str] = set()
        for tensor in _tensors(inputs):
            if (owner := self._ownership.owner.get(id(tensor))) is not None:
                owners.add(owner)
            elif (origin := self._origin(tensor)).calls:
                data.append(origin)
            else:
                owners |= origin.owners
        operator = func._schema.name.rpartition("::")[2].rstrip("_")
        outputs = list(_tensors(result))
        if self._stack:
            origin = self._inside(self._stack[-1], data, owners)
        elif data and owners:
            origin = self._functional_layers(data, owners, outputs)
        elif data:
            origin = self._glue(operator, data)
        else:
            origin = _Origin(owners=frozenset(owners))
        if origin.calls or origin.owners:
            self._spread(origin, outputs, written=func._schema.is_mutable)

    def _inside(self, call: Call, data: list[_Origin], owners: set[str]) -> _Origin:
        for owner in sorted(owners - self._ownership.held[call.layer]):
            if owner not in self.graph.layers:
                self._use(owner)
            self._edge(owner, call.layer, Flow())
        for origin in data:
            for source, flow in origin.calls.items():
                if source != call:
                    self._edge(source.layer, call.layer, flow)
        # Computed from parameters alone, it may be cached and read by the next call (autocast
        # does that), which is no data flow.
        return _Origin({call: Flow()}) if data else _Origin(owners=frozenset(owners))

    def _functional_layers(
        self, data: list[_Origin], owners: set[str], outputs: list[torch.Tensor]
    ) -> _Origin:
        calls = {}
        for owner in sorted(owners):
            # A product and the sum with its bias are two operators of one layer.
            sources = {call: flow for origin in data for call, flow in origin.calls.items()}
            inside = [call for call in sources if call.layer == owner]
            call = inside[0] if inside else self._use(owner)
            for source, flow in sources.items():
                if source.layer != owner:
                    self._edge(source.layer, owner, flow)
            calls[call] = Flow()
            if outputs:
                self.graph.shapes[owner] = tuple(outputs[0].shape)
        return _Origin(calls)

    def _glue(self, operator: str, data: list[_Origin]) -> _Origin:
        joins = len({frozenset(origin.calls) for origin in data}) > 1
        passed = Flow(joins, frozenset((operator,)))
        calls: dict[Call, Flow] = {}
        for origin in data:
            for call, flow in origin.calls.items():
                flow_here = flow.merged(passed)
                calls[call] = calls[call].merged(flow_here) if call in calls else flow_here
        if operator in ATEN_ACTIVATIONS and len(calls) == 1 and not joins:
            ((call, flow),) = calls.items()
            if not flow.joins:
                names = self.graph.activations.setdefault(call.layer, set())
                names.add(ATEN_ACTIVATIONS[operator])
        return _Origin(calls)

    def _edge(self, source: str, target: str, flow: Flow) -> None:
        if source != INPUT:
            known = self.graph.edges.get((source, target))
            self.graph.edges[source, target] = known.merged(flow) if known else flow

    def _spread(self, origin: _Origin, outputs: list[torch.Tensor], *, written: bool) -> None:
        for tensor in outputs:
            if id(tensor) in self._buffers or id(tensor) in self._ownership.owner:
                continue
            if written:
                # Views of the same storage see the change too. What the storage held before is in
                # `origin` already, because the operator read the tensor that it wrote.
                storage = tensor.untyped_storage()
                stamp = next(self._clock)
                reference = StorageWeakRef(storage)
                self._storages[storage._cdata] = (reference, stamp, origin)
            self._assign(tensor, origin)

    def _assign(self, tensor: torch.Tensor, origin: _Origin) -> None:
        self._origins[tensor] = (next(self._clock), origin)

    def _origin(self, tensor: torch.Tensor) -> _Origin:
        if id(tensor) in self._buffers:
            return _NOTHING
        known: tuple[int, _Origin] = self._origins.get(tensor, (-1, _NOTHING))
        stamp, origin = known
        if tensor.layout is torch.strided and self._storages:
            written = self._storages.get(tensor.untyped_storage()._cdata)
            if written is not None and written[1] > stamp:
                return written[2]
        return origin


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
