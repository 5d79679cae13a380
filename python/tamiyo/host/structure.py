"""What adaptations have made of a model's structure, as plain data, and how to do it again.

The structure of a model is a table of its modules. A saved state holds the table of the original
model and the rows that differ by now; a freshly built model with the same original table can then
be given those rows. Values are not part of it: they come with the model's own `state_dict`.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tamiyo.host.blueprints import blueprint, graft_onto
from tamiyo.host.grafts import bare, is_graft
from tamiyo.host.modules import ACTIVATIONS
from tamiyo.host.recurrent import settle
from tamiyo.host.surgery import gather

__all__ = ["StructureError", "Table", "apply_changes", "begin", "changes", "original", "table"]

Row: TypeAlias = dict[str, Any]
Table: TypeAlias = dict[str, Row]
"""By module path: its class, its sizes, the shapes of its tensors, and what is grafted onto it."""

_SIZES = ("in_features", "out_features", "in_channels", "out_channels", "num_features")
_RESIZED_BUFFERS = ("running_mean", "running_var")
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {kind.__name__: kind for kind in ACTIVATIONS}
_originals: "WeakKeyDictionary[nn.Module, Table]" = WeakKeyDictionary()


class StructureError(ValueError):
    """A saved structure and a model do not belong together."""


def table(model: nn.Module) -> Table:
    """The structure of a model as it is now.

    Raises:
        ValueError: something that is grafted onto a layer cannot be described.
    """
    rows: Table = {}
    grafts: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(graft) for graft in grafts):
            continue
        if is_graft(module):
            rows[path] = _row(bare(module)) | {"graft": blueprint(module)}
            grafts.append(f"{path}.")
        else:
            rows[path] = _row(module)
    return rows


def original(model: nn.Module) -> Table:
    """The structure that a model had when it was first asked for in this process.

    What earlier sessions on the same model have adapted thus counts as adapted.
    """
    known = _originals.get(model)
    if known is None:
        known = _originals[model] = table(model)
    return known


def begin(model: nn.Module) -> None:
    """A session begins: what the program itself has done to a model before is no adaptation."""
    try:
        changes(model, original(model))
    except StructureError:
        _originals[model] = table(model)


def changes(model: nn.Module, first: Table) -> Table:
    """The rows of a model that differ from those of its original structure.

    Raises:
        ValueError: they differ in ways that no adaptation explains, or that cannot be described.
    """
    now = table(model)
    if now.keys() != first.keys():
        path = sorted(now.keys() ^ first.keys())[0]
        raise StructureError(f"the program has added or removed the module {path!r}")
    changed = {path: row for path, row in now.items() if row != first[path]}
    for path, row in changed.items():
        before = first[path]
        swapped = {before["class"], row["class"]} <= _ACTIVATIONS.keys()
        if row["class"] == before["class"]:
            explained = row["tensors"].keys() == before["tensors"].keys()
        else:
            explained = swapped and not row["tensors"] and not before["tensors"]
            blueprint(model.get_submodule(path))
        if not explained:
            raise StructureError(f"the program has exchanged the module {path!r}")
    return changed


def apply_changes(model: nn.Module, first: Table, changed: Table) -> Callable[[], None]:
    """Give a model a saved structure.

    New entries of tensors are zero, and modules that are put in have arbitrary values: load the
    model's `state_dict` afterwards.

    Args:
        model: The model as the program builds it, or as it was adapted in this process.
        first: The original structure.
        changed: Its rows that differ, see `changes`.

    Returns:
        What takes it back.

    Raises:
        StructureError: the model is not the one that was saved; it was not changed.
        ValueError: something that was put into the model cannot be built.
    """
    now, wanted = table(model), first | changed
    if now not in (first, wanted) and original(model) != first:
        raise StructureError(f"this is not the model that was saved: {_difference(now, first)}")
    with ExitStack() as undone:
        change = _Change(model, undone)
        for path, row in wanted.items():
            if now[path] != row:
                change.apply(path, row)
        if (built := table(model)) != wanted:
            raise StructureError(f"it cannot be built: {_difference(built, wanted)}")
        _originals[model] = first
        return undone.pop_all().close


class _Change:
    """Assignments to the dictionaries of a model's modules, each with its inverse."""

    def __init__(self, model: nn.Module, undone: ExitStack) -> None:
        self._model = model
        self._undone = undone

    def apply(self, path: str, row: Row) -> None:
        module = self._model.get_submodule(path)
        if is_graft(module):
            module = self._replace(module, bare(module))
        if type(module).__qualname__ != row["class"]:
            self._replace(module, _ACTIVATIONS[row["class"]]())
            return
        for name, shape in row["tensors"].items():
            self._resize(module, name, shape)
        for name, size in row["sizes"].items():
            self._put(module.__dict__, name, size)
        if "graft" in row:
            self._replace(module, graft_onto(module, row["graft"]))

    def _resize(self, module: nn.Module, name: str, shape: list[int]) -> None:
        old = module._parameters.get(name)
        if old is None:
            buffer = module.get_buffer(name)
            if list(buffer.shape) != shape:
                self._put(module._buffers, name, _resized(buffer, shape))
        elif list(old.shape) != shape:
            new = nn.Parameter(_resized(old.detach(), shape), requires_grad=old.requires_grad)
            new.__dict__.update(old.__dict__)
            for holder in self._model.modules():
                for key in [key for key, value in holder._parameters.items() if value is old]:
                    self._undone.callback(settle, holder)
                    self._put(holder._parameters, key, new)
                    settle(holder)

    def _replace(self, old: nn.Module, new: nn.Module) -> nn.Module:
        new.train(old.training)
        for parent in list(self._model.modules()):
            for key in [key for key, child in parent._modules.items() if child is old]:
                self._put(parent._modules, key, new)
        return new

    def _put(self, holder: dict[str, Any], key: str, value: Any) -> None:
        self._undone.callback(holder.__setitem__, key, holder[key])
        holder[key] = value


def _row(module: nn.Module) -> Row:
    if type(module) in ACTIVATIONS and not module._parameters:
        options = module.extra_repr()
        return {"class": type(module).__qualname__, "sizes": {}, "tensors": {}, "options": options}
    sizes = {name: getattr(module, name, None) for name in _SIZES}
    tensors = {name: _shape(value) for name, value in module._parameters.items()}
    for name in _RESIZED_BUFFERS:
        if module._buffers.get(name) is not None:
            tensors[name] = _shape(module._buffers[name])
    return {
        "class": type(module).__qualname__,
        "sizes": {name: size for name, size in sizes.items() if isinstance(size, int)},
        "tensors": {name: shape for name, shape in tensors.items() if shape is not None},
    }


def _shape(tensor: torch.Tensor | None) -> list[int] | None:
    return None if tensor is None or is_lazy(tensor) else list(tensor.shape)


def _resized(tensor: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """The tensor cut, or filled up with zeros, to another shape, in its memory format."""
    for axis, size in enumerate(shape):
        index = torch.arange(size)
        tensor = gather(tensor, axis, index.where(index < tensor.shape[axis], -1))
    return tensor


def _difference(now: Table, first: Table) -> str:
    """The first place where two structures differ, in words."""
    for path in first:
        if path not in now:
            return f"the module {path!r} is missing"
        for what in ("class", "tensors", "sizes", "options", "graft"):
            saved, found = first[path].get(what), now[path].get(what)
            if saved != found:
                return f"{path!r} has {what} {found}, the saved one had {saved}"
    return f"it has another module, {next(path for path in now if path not in first)!r}"
