"""Changes what a running model consists of, with its optimiser's state, and can take it all back.

A tensor of another shape needs a new `Parameter`: writing to `.data` breaks whatever holds the
gradient accumulator of the old one. So the old objects are exchanged in every place that holds them
and are kept as they were, and undoing is putting them back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeAlias

import torch
from torch import nn

from tamiyo.host.layers import Layers
from tamiyo.host.recurrent import settle
from tamiyo.host.refusal import Refusal
from tamiyo.host.training import TrainingRun

__all__ = ["Places", "Surgery", "exchange", "gather", "places_of"]

Places: TypeAlias = Sequence[tuple[str, str]]
"""Where a model holds something: paths of modules, and the names under which they hold it."""

_FLAT_STATE = (torch.optim.LBFGS, torch.optim.SparseAdam)
"""Optimisers that count their parameters once and for all, or want sparse gradients."""


class Surgery:
    """One operation on a run: a series of changes that succeeds as a whole or leaves no trace.

    As a context manager it undoes everything if the block raises. Call it between two optimiser
    steps. `undo()` is exact, also for the optimiser's state, if no step was done in between; after
    steps it puts the objects from before back, with the values that they had then.

    Args:
        run: The run.
        layers: Its layers; who owns which parameter is kept up to date.

    Raises:
        Refusal: the optimiser's state cannot follow such a change.
    """

    def __init__(self, run: TrainingRun, layers: Layers) -> None:
        if isinstance(run.optimizer, _FLAT_STATE):
            raise Refusal(f"{type(run.optimizer).__name__} cannot follow a change of shape")
        self._optimizer = run.optimizer
        self._run = run
        self._layers = layers
        self._inverses: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.undo()

    def undo(self) -> None:
        """Take back what was done, last change first."""
        while self._inverses:
            self._inverses.pop()()

    def resize(
        self,
        parameter: nn.Parameter,
        axis: int,
        index: torch.Tensor,
        fresh: torch.Tensor | None = None,
    ) -> nn.Parameter:
        """Replace a parameter, in all modules that hold it, by one with other slices.

        Args:
            parameter: The parameter.
            axis: Axis along which slices are taken.
            index: Old index of each new slice, -1 for a new one; integers of shape [new size].
            fresh: The new slices in order (zeros without it). Their optimiser state is zero.

        Returns:
            The parameter that has taken its place; it may be written to before the next step.

        Raises:
            Refusal: its state in the optimiser, or something attached to it, cannot follow.
        """
        self._check(parameter)
        state = self._optimizer.state.get(parameter)
        # Anything in the state that has the parameter's shape is a moment of its entries.
        moved = {
            key: _moved(parameter, key, value, lambda moment: gather(moment, axis, index))
            for key, value in (state or {}).items()
        }
        new = nn.Parameter(
            gather(parameter.detach(), axis, index, fresh), requires_grad=parameter.requires_grad
        )
        new.__dict__.update(parameter.__dict__)
        places = places_of(self._layers.model, parameter)
        self._exchange(parameter, new, None if state is None else moved)
        self._inverses.append(lambda: self._exchange(new, parameter, state))
        self._inverses += [c.resize(places, axis, index, new) for c in self._run.companions]
        return new

    def resize_buffer(
        self,
        module: nn.Module,
        name: str,
        index: torch.Tensor,
        fresh: torch.Tensor | None = None,
    ) -> None:
        """The same along axis 0 for a buffer of one module."""
        old = module.get_buffer(name)
        places, new = places_of(self._layers.model, old), gather(old, 0, index, fresh)
        self.put(module._buffers, name, new)
        self._inverses += [c.resize(places, 0, index, new) for c in self._run.companions]

    def put(self, holder: dict[str, Any], key: str, value: Any) -> None:
        """Exchange an entry of a dictionary, for example a number that a module keeps."""
        previous = holder[key]
        holder[key] = value
        self._inverses.append(lambda: holder.__setitem__(key, previous))
        for companion in self._run.companions:
            for path, module in self._layers.model.named_modules():
                if vars(module) is holder:
                    self._inverses.append(companion.put(path, key, value))

    def replace(self, old: nn.Module, new: nn.Module) -> None:
        """Put a module in the place of another one, wherever the model holds it.

        Raises:
            Refusal: it is the model itself.
        """
        if old is self._layers.model:
            raise Refusal("the model itself cannot be replaced from inside")
        new.train(old.training)
        self._inverses.append(exchange(self._run, self._layers.model, old, new))

    def join(self, layer_id: int, parameters: Iterable[nn.Parameter]) -> None:
        """Let a layer own new parameters and the optimiser train them.

        Vectors join the group of the layer's bias, which often has no weight decay, and everything
        else that of its weight, in the order that they have in the model.

        Args:
            layer_id: A layer with a weight.
            parameters: Parameters that are in the model already.

        Raises:
            Refusal: the optimiser does not train the layer, or cannot train such parameters.
        """
        held = self._layers.module(layer_id)._parameters
        weights = self._group(held["weight"])
        biases = self._group(held.get("bias")) or weights
        for parameter in parameters:
            group = biases if parameter.dim() < 2 else weights
            if group is None:
                raise Refusal(f"the optimiser does not train layer {layer_id}")
            self._join(parameter, layer_id, group)

    def _join(self, parameter: nn.Parameter, layer_id: int, group: dict[str, Any]) -> None:
        muon = getattr(torch.optim, "Muon", ())
        if parameter.dim() != 2 and isinstance(self._optimizer, muon):
            raise Refusal("Muon trains matrices only")
        ownership, path = self._layers.ownership, self._layers.names[layer_id]
        name, place = self._name_and_place(parameter, group)
        group["params"].insert(place, parameter)
        if "param_names" in group:
            group["param_names"].insert(place, name)
        if group.get("fused") and any(
            self._optimizer.state.get(other, {}).get("momentum_buffer") is not None
            for other in group["params"]
        ):
            # Fused SGD takes either no parameter or all of them to have momentum already.
            buffer = torch.zeros_like(parameter, requires_grad=False)
            self._optimizer.state[parameter] = {"momentum_buffer": buffer}
        ownership.owner[id(parameter)] = path
        ownership.parameters[path].append(parameter)
        self._inverses.append(lambda: self._leave(parameter))

    def leave(self, parameters: Iterable[nn.Parameter]) -> None:
        """The inverse of `join`, for parameters that are taken out of the model."""
        for parameter in parameters:
            self._inverses.append(self._leave(parameter))

    def _leave(self, parameter: nn.Parameter) -> Callable[[], None]:
        """Returns what puts the parameter back into its place."""
        optimizer, ownership = self._optimizer, self._layers.ownership
        path = ownership.owner.pop(id(parameter))
        owned = ownership.parameters[path]
        del owned[_place(owned, parameter)]
        state = optimizer.state.pop(parameter, None)
        number = next(
            (n for n, group in enumerate(optimizer.param_groups) if _holds(group, parameter)), None
        )
        place, names = 0, []
        if number is not None:
            group = optimizer.param_groups[number]
            place = _place(group["params"], parameter)
            del group["params"][place]
            names = [group["param_names"].pop(place)] if "param_names" in group else []

        def back() -> None:
            ownership.owner[id(parameter)] = path
            ownership.parameters[path].append(parameter)
            if number is not None:
                optimizer.param_groups[number]["params"].insert(place, parameter)
            if number is not None and names:
                optimizer.param_groups[number]["param_names"].insert(place, *names)
            if state is not None:
                optimizer.state[parameter] = state

        return back

    def _check(self, parameter: nn.Parameter) -> None:
        if type(parameter) is not nn.Parameter:
            raise Refusal(f"a {type(parameter).__name__} cannot be resized")
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise Refusal("a hook is registered on a parameter")
        if parameter.requires_grad and self._group(parameter) is None:
            raise Refusal("a parameter is trained by another optimiser, or by none")

    def _exchange(
        self, old: nn.Parameter, new: nn.Parameter, state: Mapping[str, Any] | None
    ) -> None:
        """Put `new` in every place of `old`, also of one that the user has moved since."""
        for module in self._layers.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is old:
                    module._parameters[name] = new
                    settle(module)
        if (group := self._group(old)) is not None:
            group["params"][_place(group["params"], old)] = new
        self._optimizer.state.pop(old, None)
        if state is not None:
            self._optimizer.state[new] = state
        ownership = self._layers.ownership
        path = ownership.owner.pop(id(old), None)
        if path is not None:
            ownership.owner[id(new)] = path
            owned = ownership.parameters[path]
            owned[_place(owned, old)] = new

    def _group(self, parameter: nn.Parameter | None) -> dict[str, Any] | None:
        for group in self._optimizer.param_groups:
            if _holds(group, parameter):
                return group
        return None

    def _name_and_place(self, wanted: nn.Parameter, group: Mapping[str, Any]) -> tuple[str, int]:
        """The parameter's name, and its place in a group in the model's own order.

        A checkpoint knows the optimiser's state by place only, and who loads it will have built the
        groups from the adapted model.
        """
        places = {id(parameter): place for place, parameter in enumerate(group["params"])}
        place = 0
        for name, parameter in self._layers.model.named_parameters():
            if parameter is wanted:
                return name, place
            place = places.get(id(parameter), place - 1) + 1
        raise LookupError("the parameter is not in the model")


def places_of(model: nn.Module, thing: nn.Module | torch.Tensor) -> Places:
    """Where a model holds a module, a parameter or a buffer."""
    kinds = ("_modules",) if isinstance(thing, nn.Module) else ("_parameters", "_buffers")
    return [
        (path, key)
        for path, module in model.named_modules()
        for kind in kinds
        for key, value in getattr(module, kind).items()
        if value is thing
    ]


def exchange(
    run: TrainingRun, model: nn.Module, old: nn.Module, new: nn.Module
) -> Callable[[], None]:
    """Put a module in the place of another one in the model and its companions.

    Returns:
        What puts the old one back.
    """
    places = places_of(model, old)
    with ExitStack() as undone:
        for path, key in places:
            holder = model.get_submodule(path)._modules
            undone.callback(holder.__setitem__, key, old)
            holder[key] = new
        for companion in run.companions if places else ():
            undone.callback(companion.replace(places, new))
        return undone.pop_all().close


def gather(
    tensor: torch.Tensor, axis: int, index: torch.Tensor, fresh: torch.Tensor | None = None
) -> torch.Tensor:
    """Slices of a tensor in a new order, with new ones between them.

    Args:
        tensor: Any tensor.
        axis: Axis along which slices are taken.
        index: Old index of each slice, -1 for a new one; integers of shape [new size].
        fresh: The new slices in order (zeros without it).

    Returns:
        A new tensor with the memory format of the old one.
    """
    index = index.to(tensor.device)
    result = tensor.index_select(axis, index.clamp(min=0))
    places = (index < 0).nonzero().flatten()
    if len(places) and fresh is None:
        result.index_fill_(axis, places, 0)
    elif len(places) and fresh is not None:
        result.index_copy_(axis, places, fresh.to(result))
    for layout in (torch.channels_last, torch.channels_last_3d):
        fits = tensor.dim() == (4 if layout is torch.channels_last else 5)
        if fits and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=layout):
            result = result.contiguous(memory_format=layout)
    return result


def _moved(
    parameter: nn.Parameter,
    key: str,
    value: Any,
    resized: Callable[[torch.Tensor], torch.Tensor],
) -> Any:
    """An entry of the optimiser's state for the resized parameter, sharing nothing with the old."""
    if isinstance(value, torch.Tensor):
        if value.shape == parameter.shape:
            return resized(value)
        if value.dim() == 0 or value.numel() == 1:
            return value.clone()
    elif value is None or isinstance(value, bool | int | float):
        return value
    raise Refusal(f"the optimiser's state {key!r} cannot follow a change of shape")


def _holds(group: Mapping[str, Any], parameter: nn.Parameter | None) -> bool:
    return any(parameter is other for other in group["params"])


def _place(items: list[nn.Parameter], wanted: nn.Parameter) -> int:
    return next(place for place, item in enumerate(items) if item is wanted)
