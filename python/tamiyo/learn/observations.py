"""Graphs as columns over time: what a policy saw at consecutive moments of one run.

What a topology alone decides (which layers there are, and which feeds which) is one
`GraphStructure` that any number of moments share.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tamiyo.graph.schema import ACTIONS, EDGE_DIM, GLOBAL_DIM, NODE_DIM

__all__ = ["GraphStructure", "Observations", "frozen"]

Array: TypeAlias = npt.NDArray[Any]
Scalar = TypeVar("Scalar", bound=np.generic)


def frozen(values: Any, dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """A read-only array of this type; one that is read-only already is taken as it is."""
    if isinstance(values, np.ndarray) and values.dtype == dtype and not values.flags.writeable:
        return values
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class GraphStructure:
    """What does not change while a topology lasts: N layers and E directed edges between them.

    Two structures with the same content have the same `key`.

    Raises:
        ValueError: another shape, or an edge without ends.
    """

    edge_index: npt.NDArray[np.int64]
    """[2, E], rows of the graph's nodes."""
    layer_type: npt.NDArray[np.int64]
    """[N], index into `graph.schema.LAYER_TYPES`."""

    def __post_init__(self) -> None:
        for name in ("edge_index", "layer_type"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        if self.layer_type.ndim != 1 or not len(self.layer_type):
            raise ValueError(f"layer_type must be [N] with N >= 1, not {self.layer_type.shape}")
        if self.edge_index.ndim != 2 or len(self.edge_index) != 2:
            raise ValueError(f"edge_index must be [2, E], not {self.edge_index.shape}")
        if self.edges and not 0 <= self.edge_index.min() <= self.edge_index.max() < self.nodes:
            raise ValueError(f"edge_index names nodes outside 0..{self.nodes - 1}")

    @property
    def nodes(self) -> int:
        """N."""
        return len(self.layer_type)

    @property
    def edges(self) -> int:
        """E."""
        return int(self.edge_index.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return int(self.edge_index.nbytes + self.layer_type.nbytes)

    @cached_property
    def key(self) -> str:
        """Hash of the content, 32 hex digits."""
        digest = hashlib.blake2b(np.int64(self.nodes).tobytes(), digest_size=16)
        digest.update(self.layer_type.tobytes())
        digest.update(self.edge_index.tobytes())
        return digest.hexdigest()


_SHAPES: dict[str, tuple[type[np.generic], tuple[str | int, ...]]] = {
    "x": (np.float32, ("N", NODE_DIM)),
    "x_measured": (np.bool_, ("N", NODE_DIM)),
    "edge_attr": (np.float32, ("E", EDGE_DIM)),
    "edge_measured": (np.bool_, ("E", EDGE_DIM)),
    "global_features": (np.float32, (GLOBAL_DIM,)),
    "global_measured": (np.bool_, (GLOBAL_DIM,)),
    "action_mask": (np.bool_, ("N", len(ACTIONS))),
    "model_action_mask": (np.bool_, (len(ACTIONS),)),
}
"""Type and shape of every column of `Observations`, behind its leading moment."""


@dataclass(frozen=True, eq=False)
class Observations:
    """M moments of one graph; the columns are those of `ModelGraphBuilder`'s `graph_data`.

    Arrays are copied unless they are read-only.

    Raises:
        ValueError: columns that do not fit each other or the structure, or a value that is not
            finite (what was not measured is 0, and its mask false).
    """

    COLUMNS: ClassVar[tuple[str, ...]] = tuple(_SHAPES)

    structure: GraphStructure
    x: npt.NDArray[np.float32]
    """[M, N, 16]."""
    x_measured: npt.NDArray[np.bool_]
    edge_attr: npt.NDArray[np.float32]
    """[M, E, 8]."""
    edge_measured: npt.NDArray[np.bool_]
    global_features: npt.NDArray[np.float32]
    """[M, G]."""
    global_measured: npt.NDArray[np.bool_]
    action_mask: npt.NDArray[np.bool_]
    """[M, N, types]: what each layer can take."""
    model_action_mask: npt.NDArray[np.bool_]
    """[M, types]: what the model as a whole can take."""

    def __post_init__(self) -> None:
        sizes = {"N": self.structure.nodes, "E": self.structure.edges}
        for name, (dtype, shape) in _SHAPES.items():
            array = frozen(getattr(self, name), dtype)
            object.__setattr__(self, name, array)
            expected = tuple(sizes[size] if isinstance(size, str) else size for size in shape)
            if array.ndim != len(shape) + 1 or array.shape[1:] != expected:
                raise ValueError(f"{name} must be [M, *{expected}], not {array.shape}")
            if len(array) != len(self.x):
                raise ValueError(f"{name} has {len(array)} moments, x has {len(self.x)}")
            if dtype is np.float32 and not np.isfinite(array).all():
                raise ValueError(f"{name} has values that are not finite")

    @classmethod
    def from_data(cls, data: Any, structure: GraphStructure | None = None) -> "Observations":
        """One moment from one PyG `Data` as `ModelGraphBuilder` makes it.

        Args:
            data: The graph, on any device.
            structure: A structure to share; taken if its content is that of `data`.
        """
        own = GraphStructure(data.edge_index.numpy(force=True), data.layer_type.numpy(force=True))
        if structure is None or structure.key != own.key:
            structure = own
        columns = {name: getattr(data, name).numpy(force=True) for name in _SHAPES}
        # PyG already keeps what there is one of per graph with a leading axis of one.
        per_graph = ("global_features", "global_measured", "model_action_mask")
        return cls(
            structure,
            **{name: a if name in per_graph else a[None] for name, a in columns.items()},
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Observations"]) -> "Observations":
        """The moments of `parts` in order.

        Raises:
            ValueError: no parts, or parts of different structures.
        """
        if len({part.structure.key for part in parts}) != 1:
            raise ValueError("only moments of one structure go together")
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _SHAPES
        }
        return cls(parts[0].structure, **columns)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, moments: slice) -> "Observations":
        return Observations(self.structure, **{name: a[moments] for name, a in self.columns()})

    def columns(self) -> Iterator[tuple[str, Array]]:
        """Name and array of every column."""
        return ((name, getattr(self, name)) for name in _SHAPES)

    def equals(self, other: "Observations") -> bool:
        """Whether both hold the same moments of the same graph, number for number."""
        return self.structure.key == other.structure.key and all(
            np.array_equal(column, getattr(other, name)) for name, column in self.columns()
        )

    def with_structure(self, structure: GraphStructure) -> "Observations":
        """The same moments on an equal structure that is shared with others."""
        return self if structure is self.structure else replace(self, structure=structure)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, without the structure."""
        return sum(array.nbytes for _, array in self.columns())
