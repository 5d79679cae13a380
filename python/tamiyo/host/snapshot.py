"""The whole state of a training run at one step: what objects it consists of and their values."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tamiyo.host.recurrent import settle
from tamiyo.host.training import TrainingRun, unwrap

__all__ = ["RunSnapshot", "TrainedParameters", "state_bytes"]


class _TensorStore:
    """Copies of tensors in host memory, each beside the live tensor that it is a copy of."""

    def __init__(self, reuse: "_TensorStore | None" = None) -> None:
        self._live: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        """The live tensors, less what an expanded one repeats: that cannot be written to."""
        self._copies: list[torch.Tensor] = []
        self._index: dict[int, int] = {}
        self._spare = reuse._by_layout() if reuse is not None else {}

    def add(self, tensor: torch.Tensor) -> int:
        """Take a tensor in; the number under which it is kept."""
        known = self._index.get(id(tensor))
        if known is None:
            known = self._index[id(tensor)] = len(self._live)
            self._live.append(tensor)
            self._values.append(_without_repeats(tensor))
        return known

    def fill(self) -> None:
        """Copy all the values, into buffers of an older store where they fit."""
        for tensor in self._values:
            spare = self._spare.get(_layout(tensor))
            self._copies.append(spare.pop() if spare else torch.empty_like(tensor, device="cpu"))
        self._spare = {}
        _copy_all(self._copies, self._values)

    def write_back(self) -> None:
        """Put all values back into the live tensors."""
        _copy_all(self._values, self._copies)

    def live(self, number: int) -> torch.Tensor:
        """The live tensor of a number."""
        return self._live[number]

    def finite(self, tensor: torch.Tensor) -> bool:
        """Whether the kept value of a live tensor is finite; of one that is not kept, true."""
        number = self._index.get(id(tensor))
        return number is None or bool(self._copies[number].isfinite().all())

    def equal(self) -> bool:
        """Whether every live tensor has, bit for bit, the value that was kept."""
        return all(
            _same_bits(live.cpu(), kept)
            for live, kept in zip(self._values, self._copies, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """Host memory that the copies take."""
        return sum(kept.numel() * kept.element_size() for kept in self._copies)

    def _by_layout(self) -> dict[Any, list[torch.Tensor]]:
        spare: dict[Any, list[torch.Tensor]] = {}
        for kept in self._copies:
            spare.setdefault(_layout(kept), []).append(kept)
        return spare


@dataclass(frozen=True, slots=True)
class _ModuleState:
    module: nn.Module
    training: bool
    parameters: Mapping[str, nn.Parameter | None]
    buffers: Mapping[str, torch.Tensor | None]
    modules: Mapping[str, nn.Module | None]

    @classmethod
    def of(cls, module: nn.Module) -> "_ModuleState":
        return cls(
            module,
            module.training,
            dict(module._parameters),
            dict(module._buffers),
            dict(module._modules),
        )

    def matches(self) -> bool:
        """Whether the module still consists of the same objects."""
        module = self.module
        return module.training == self.training and all(
            _same_objects(now, then)
            for now, then in (
                (module._parameters, self.parameters),
                (module._buffers, self.buffers),
                (module._modules, self.modules),
            )
        )

    def restore(self) -> None:
        self.module.training = self.training
        for now, then in (
            (self.module._parameters, self.parameters),
            (self.module._buffers, self.buffers),
            (self.module._modules, self.modules),
        ):
            if not _same_objects(now, then):
                now.clear()
                now.update(then)  # type: ignore[arg-type] # each of its own kind
                settle(self.module)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Stands for a tensor inside a copied structure."""

    number: int


class TrainedParameters:
    """Which parameters an optimiser trains, group by group.

    Where the user has added some since a snapshot (to unfreeze layers, say), going back to it would
    silently end their training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self.groups = [list(group["params"]) for group in optimizer.param_groups]

    def unchanged(self) -> bool:
        """Whether the optimiser still trains the same parameters in the same groups."""
        now = self._optimizer.param_groups
        return len(now) == len(self.groups) and all(
            _same_items(group["params"], then) for group, then in zip(now, self.groups, strict=True)
        )

    def forget(self, parameters: Iterable[nn.Parameter]) -> None:
        """Expect parameters to be gone, because Tamiyo itself has taken them out."""
        gone = {id(parameter) for parameter in parameters}
        self.groups = [[p for p in group if id(p) not in gone] for group in self.groups]


class RunSnapshot:
    """Model, optimiser, scheduler, gradient scaler and random state of a run between two steps.

    A snapshot holds references to the objects that the run consists of and copies of their values
    in host memory, so that restoring brings back replaced modules and parameters too, and keeps
    the user's own references valid. Gradients are not kept: take and restore it after the
    optimiser step, before the next backward pass.

    Args:
        run: The run.
        step: Optimiser steps done.
        reuse: An older snapshot that is no longer wanted; its buffers are used again.
    """

    def __init__(self, run: TrainingRun, step: int, reuse: "RunSnapshot | None" = None) -> None:
        self.run = run
        self.step = step
        self._store: _TensorStore = _TensorStore(reuse._store if reuse is not None else None)
        self._modules = [_ModuleState.of(module) for module in unwrap(run.model).modules()]
        for state in self._modules:
            for tensor in (*state.parameters.values(), *state.buffers.values()):
                if tensor is not None:
                    self._store.add(tensor)
        optimizer = run.optimizer
        self._group_objects = list(optimizer.param_groups)
        self._groups = [
            {key: value if key == "params" else self._keep(value) for key, value in group.items()}
            for group in optimizer.param_groups
        ]
        self.trained = TrainedParameters(optimizer)
        """The parameters of the optimiser's groups."""
        self._state = {parameter: self._keep(value) for parameter, value in optimizer.state.items()}
        scheduler = run.scheduler
        self._scheduler = copy.deepcopy(scheduler.state_dict()) if scheduler is not None else None
        self._scaler = run.scaler.state_dict() if run.scaler is not None else None
        self._random = _random_state(self._devices())
        self._store.fill()

    @property
    def nbytes(self) -> int:
        """Host memory that the copies take."""
        return self._store.nbytes

    def restore(self, *, random_state: bool = True) -> None:
        """Put the run back.

        Args:
            random_state: Also rewind torch's generators. Data loaders that draw from them would
                then repeat their order, so going back over several steps leaves them alone.
        """
        for module in self._modules:
            module.restore()
        optimizer = self.run.optimizer
        optimizer.param_groups[:] = self._group_objects
        for group, options, parameters in zip(
            self._group_objects, self._groups, self.trained.groups, strict=True
        ):
            group["params"][:] = parameters
            for key in set(group) - set(options):
                del group[key]
            group.update(
                {key: self._give(value) for key, value in options.items() if key != "params"}
            )
        optimizer.state.clear()
        for parameter, value in self._state.items():
            optimizer.state[parameter] = self._give(value)
        self._store.write_back()
        if self._scheduler is not None:
            self.run.scheduler.load_state_dict(copy.deepcopy(self._scheduler))
        if self.run.scaler is not None and self._scaler:
            self.run.scaler.load_state_dict(self._scaler)
        if random_state:
            _set_random_state(self._random)

    def verify(self, *, random_state: bool = True) -> bool:
        """Whether the run is, object for object and bit for bit, in the state that was kept.

        Args:
            random_state: Also compare torch's generators.
        """
        optimizer = self.run.optimizer
        return (
            [state.module for state in self._modules] == list(unwrap(self.run.model).modules())
            and all(state.matches() for state in self._modules)
            and _same_items(optimizer.param_groups, self._group_objects)
            and all(
                _same_items(group["params"], parameters)
                and self._same(_without(group), _without(o))
                for group, parameters, o in zip(
                    self._group_objects, self.trained.groups, self._groups, strict=True
                )
            )
            and optimizer.state.keys() == self._state.keys()
            and all(self._same(optimizer.state[p], kept) for p, kept in self._state.items())
            and self._store.equal()
            and (
                self._scheduler is None
                or _plain_equal(self.run.scheduler.state_dict(), self._scheduler)
            )
            and (self.run.scaler is None or self.run.scaler.state_dict() == self._scaler)
            and (not random_state or _same_random_state(self._random, self._devices()))
        )

    def broken_since(self) -> bool:
        """Whether the run has come to hold a value that is not finite where there was none."""
        floating = [t for t in _tensors(self.run) if t.is_floating_point() and t.numel()]
        if not floating:
            return False
        with torch.no_grad():
            # A sum of squares may overflow where every value is finite, so the largest is asked.
            norms = torch._foreach_norm([t.detach() for t in floating], float("inf"))
        device = floating[0].device
        finite = torch.stack([norm.isfinite().to(device) for norm in norms]).tolist()
        return any(self._store.finite(t) for t, ok in zip(floating, finite, strict=True) if not ok)

    def broken(self, good: "RunSnapshot | None" = None) -> bool:
        """Whether a parameter, or what the optimiser remembers of one, is not finite.

        Buffers are not asked: masks may be infinite, and training may not feel the others.

        Args:
            good: A healthy state of the run; what is not finite there either does no harm.
        """
        weights = (p for module in self._modules for p in module.parameters.values())
        states = (value for state in self._state.values() for value in state.values())
        moments = (self._store.live(kept.number) for kept in states if isinstance(kept, _Kept))
        return any(
            not self._store.finite(tensor) and (good is None or good._store.finite(tensor))
            for tensor in (*weights, *moments)
            if tensor is not None
        )

    def _devices(self) -> list[int]:
        parameters = unwrap(self.run.model).parameters()
        return sorted({p.device.index for p in parameters if p.is_cuda})

    def _keep(self, value: Any) -> Any:
        """A copy of a nested option or state, with its tensors in the store."""
        if isinstance(value, torch.Tensor):
            return _Kept(self._store.add(value))
        if isinstance(value, dict):
            return {key: self._keep(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self._keep(item) for item in value])
        return copy.deepcopy(value)

    def _give(self, kept: Any) -> Any:
        if isinstance(kept, _Kept):
            return self._store.live(kept.number)
        if isinstance(kept, dict):
            return {key: self._give(item) for key, item in kept.items()}
        if isinstance(kept, list | tuple):
            return type(kept)([self._give(item) for item in kept])
        return copy.deepcopy(kept)

    def _same(self, value: Any, kept: Any) -> bool:
        """Whether `value` is what `_give(kept)` would be, its tensors' values aside."""
        if isinstance(kept, _Kept):
            live = self._store.live(kept.number)
            return value is live
        if isinstance(kept, dict):
            return value.keys() == kept.keys() and all(
                self._same(value[key], item) for key, item in kept.items()
            )
        if isinstance(kept, list | tuple):
            return len(value) == len(kept) and all(map(self._same, value, kept))
        return bool(value == kept)


def state_bytes(run: TrainingRun) -> int:
    """Host memory that a snapshot of the run would take, without taking one."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(run))


def _tensors(run: TrainingRun) -> list[torch.Tensor]:
    """Parameters, buffers and the optimiser's state."""
    model = unwrap(run.model)
    tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    for state in run.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return tensors


def _without_repeats(tensor: torch.Tensor) -> torch.Tensor:
    for axis, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[axis] > 1:
            tensor = tensor.detach().narrow(axis, 0, 1)
    return tensor


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (tensor.dtype, tensor.shape, tensor.stride())


def _copy_all(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    if targets:
        with torch.no_grad():
            torch._foreach_copy_(list(targets), list(sources))


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    # Compared as bytes, because NaN is not equal to itself and -0.0 is equal to 0.0.
    return torch.equal(
        left.contiguous().reshape(-1).view(torch.uint8),
        right.contiguous().reshape(-1).view(torch.uint8),
    )


def _same_objects(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    return left.keys() == right.keys() and all(left[key] is right[key] for key in left)


def _same_items(left: Sequence[object], right: Sequence[object]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _without(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _plain_equal(left: Any, right: Any) -> bool:
    """Equality of nested state where tensors may occur and objects without `==` are ignored."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and _same_bits(left.cpu(), right.cpu())
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_plain_equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_plain_equal, left, right))
    if left is None or isinstance(left, bool | int | float | str):
        return bool(left == right)
    return type(left) is type(right)


def _random_state(devices: Sequence[int]) -> dict[int, torch.Tensor]:
    """States of torch's generators: the CPU's under -1, each GPU's under its index."""
    return {-1: torch.get_rng_state()} | {gpu: torch.cuda.get_rng_state(gpu) for gpu in devices}


def _set_random_state(states: Mapping[int, torch.Tensor]) -> None:
    for device, state in states.items():
        if device < 0:
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)


def _same_random_state(states: Mapping[int, torch.Tensor], devices: Sequence[int]) -> bool:
    now = _random_state(devices)
    return now.keys() == states.keys() and all(torch.equal(now[d], states[d]) for d in now)
