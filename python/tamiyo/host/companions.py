"""Copies of a model that a program keeps beside it, such as averages of its weights.

They have to change their shape together with the model: whoever averages weights pairs the tensors
of both, and fails or, worse, goes on with other pairs when they differ.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from tamiyo.host.recurrent import settle
from tamiyo.host.structure import StructureError, table
from tamiyo.host.surgery import Places, gather, places_of
from tamiyo.host.training import unwrap

__all__ = ["Companion"]


class Companion:
    """One copy. Each change returns its inverse.

    Args:
        whole: The copy as the program holds it, for example an `AveragedModel`.
        model: The model.

    Raises:
        StructureError: it is not a copy of the model.
    """

    def __init__(self, whole: nn.Module, model: nn.Module) -> None:
        averaged = isinstance(whole, torch.optim.swa_utils.AveragedModel)
        self.inside = whole.get_submodule("module" if averaged else "")
        """What corresponds to the model, module by module."""
        self._whole = whole
        if table(self.inside) != table(unwrap(model)):
            raise StructureError("a companion has to be a copy of the model")

    def resize(
        self, places: Places, axis: int, index: torch.Tensor, new: torch.Tensor
    ) -> Callable[[], None]:
        """Give a parameter or buffer other slices; new ones are those of the model.

        Args:
            places: Where it is.
            axis: Axis along which slices are taken.
            index: Old index of each new slice, -1 for a new one; integers of shape [new size].
            new: What has taken its place in the model.
        """
        path, key = places[0]
        kind = "_parameters" if isinstance(new, nn.Parameter) else "_buffers"
        old = getattr(self.inside.get_submodule(path), kind)[key]
        added = (index < 0).nonzero().flatten().to(new.device)
        fresh = new.detach().index_select(axis, added).to(old.device)
        value = gather(old.detach(), axis, index, fresh)
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        return self._put(places, kind, value)

    def put(self, path: str, key: str, value: Any) -> Callable[[], None]:
        """Set an attribute of a module, for example a number that it keeps."""
        holder = vars(self.inside.get_submodule(path))
        previous = holder[key]
        holder[key] = value
        return lambda: holder.__setitem__(key, previous)

    def replace(self, places: Places, new: nn.Module) -> Callable[[], None]:
        """Put a copy of a module in the place of another; tensors of the same name go on."""
        path, key = places[0]
        old = self.inside.get_submodule(path)._modules[key] or nn.Module()
        device = next((tensor.device for tensor in self.inside.parameters()), None)
        twin = copy.deepcopy(new).to(device).train(old.training)
        own = {**dict(old.named_parameters()), **dict(old.named_buffers())}
        for prefix, module in twin.named_modules(prefix=""):
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    kept = own.get(f"{prefix}.{name}" if prefix else name)
                    if tensor is not None and kept is not None and kept.shape == tensor.shape:
                        held[name] = kept
        return self._put(places, "_modules", twin)

    def remember(self) -> Callable[[], None]:
        """Keep all values; returns what puts them back into the same tensors."""
        tensors = [*self._whole.parameters(), *self._whole.buffers()]
        kept = [(tensor, tensor.detach().clone()) for tensor in tensors]

        def put_back() -> None:
            with torch.no_grad():
                for tensor, value in kept:
                    tensor.copy_(value)

        return put_back

    def align(self, model: nn.Module) -> None:
        """After the model went back to a snapshot: take its modules where the copy has others.

        So it takes its values where the copy's are not finite, which an average never forgets.
        """
        now = table(self.inside)
        for path, row in table(model).items():
            if now[path] != row:
                module = model.get_submodule(path)
                self.replace(places_of(model, module), module)
        pairs = [
            *zip(self.inside.parameters(), model.parameters(), strict=True),
            *zip(self.inside.buffers(), model.buffers(), strict=True),
        ]
        with torch.no_grad():
            for own, live in pairs:
                if own.is_floating_point() and not own.isfinite().all():
                    own.copy_(live)

    def _put(self, places: Places, kind: str, value: Any) -> Callable[[], None]:
        with ExitStack() as undone:
            for path, key in places:
                module = self.inside.get_submodule(path)
                holder = getattr(module, kind)
                undone.callback(settle, module)
                undone.callback(holder.__setitem__, key, holder[key])
                holder[key] = value
                settle(module)
            return undone.pop_all().close
