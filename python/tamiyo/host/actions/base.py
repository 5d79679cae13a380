"""What an adaptation is: checked against a table, applied between two steps, and undoable."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import torch
from torch.utils.hooks import RemovableHandle

from tamiyo.contracts import AdaptationType
from tamiyo.host.faults import Faults
from tamiyo.host.growth.start import DeferredStart, DeferredStarts
from tamiyo.host.layers import Layers
from tamiyo.host.refusal import Refusal
from tamiyo.host.seeds import SeedBed
from tamiyo.host.snapshot import RunSnapshot
from tamiyo.host.training import TrainingRun

__all__ = [
    "HOOKS",
    "Action",
    "Choice",
    "Context",
    "Number",
    "ParameterRule",
    "Refusal",
    "Standing",
    "Undo",
]

HOOKS = "adaptation hooks"
"""The part of the host that errors of installed hooks are counted under."""
MOST_HOOKS = 16
"""Optimiser hooks at a time; each of them costs time at every step."""

Undo: TypeAlias = Callable[[], None]
"""Takes an adaptation back, bit for bit if no step was done since it was applied. After steps it
still removes what the adaptation installed; a snapshot then restores the values."""


@dataclass(frozen=True, slots=True)
class Number:
    """A bounded number."""

    low: float
    high: float
    default: float | None = None

    def check(self, name: str, value: float | str | None) -> float:
        """The value, or its default.

        Raises:
            Refusal: it is missing, not a number, or out of bounds.
        """
        value = self.default if value is None else value
        if isinstance(value, str) or value is None or not self.low <= value <= self.high:
            raise Refusal(f"{name} must be a number in [{self.low}, {self.high}], got {value!r}")
        return float(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    options: Sequence[str]
    default: str | None = None

    def check(self, name: str, value: float | str | None) -> str:
        """The word, or its default.

        Raises:
            Refusal: it is missing or not one of the options.
        """
        value = self.default if value is None else value
        if not isinstance(value, str) or value not in self.options:
            raise Refusal(f"{name} must be one of {', '.join(self.options)}, got {value!r}")
        return value


ParameterRule: TypeAlias = Number | Choice


@dataclass(frozen=True, slots=True)
class Standing:
    """An adaptation that lives in optimiser hooks, and what it takes to apply it again."""

    adaptation: str
    target: list[int]
    parameters: dict[str, float | str]


@dataclass(slots=True)
class Context:
    """What an action may read and change."""

    run: TrainingRun
    layers: Layers
    activity: dict[int, torch.Tensor] = field(default_factory=dict)
    """Mean absolute activation of each layer's units at the last sample."""
    good: RunSnapshot | None = None
    """The last known good state."""
    before: RunSnapshot | None = None
    """The state that a rollback will return to."""
    seed: int = 0
    """Seeds whatever an action draws at random, so that the run's own generators stay put."""
    faults: Faults = field(default_factory=Faults)
    """Where errors of installed hooks go."""
    seed_bed: SeedBed = field(init=False)
    """The seeds that were planted in this session."""
    starts: DeferredStarts = field(default_factory=DeferredStarts)
    """New units that wait for the gradients of a few steps."""
    standing: list[Standing] = field(default_factory=list)
    """Adaptations in force that live in hooks, in the order in which they were applied."""
    _handles: list[RemovableHandle] = field(default_factory=list)
    _stop_ticking: Undo = field(default=lambda: None)

    def __post_init__(self) -> None:
        self.seed_bed = SeedBed(self.run, self.layers)

    def tend_seeds(self) -> Undo:
        """See to it that seeds are ticked after each step; call it before planting one.

        Returns:
            What ends that again, if there are no seeds any more.

        Raises:
            Refusal: too many hooks are installed already.
        """
        if any(True for _ in self.seed_bed):
            return lambda: None
        return self.install((self.run.optimizer.register_step_post_hook, self.seed_bed.tick))

    def defer(self, start: DeferredStart) -> Undo:
        """Let new units wait until some steps have shown how they should begin.

        The optimiser hook that this takes stays until the next call, because a hook cannot be
        removed while hooks run.

        Returns:
            What ends the wait.

        Raises:
            Refusal: too many hooks are installed already.
        """
        self._stop_ticking()
        self._stop_ticking = stop_ticking = self.install(
            (self.run.optimizer.register_step_post_hook, self.starts.tick)
        )
        stop = self.starts.add(start)

        def undo() -> None:
            stop()
            if not self.starts.waiting:
                stop_ticking()

        return undo

    def install(
        self,
        *hooks: tuple[Callable[..., RemovableHandle], Callable[..., None]],
        standing: Standing | None = None,
    ) -> Undo:
        """Install optimiser hooks that can never raise into the training loop.

        Args:
            *hooks: What registers a hook, for example `optimizer.register_step_pre_hook`, and the
                function that is called with the hook's arguments.
            standing: The adaptation that consists of them.

        Returns:
            What removes them again.

        Raises:
            Refusal: too many are installed already; none was added.
        """
        if len(self._handles) + len(hooks) > MOST_HOOKS:
            raise Refusal(f"{len(self._handles)} optimiser hooks of adaptations are installed")
        handles = [register(self.faults.shield(HOOKS, hook)) for register, hook in hooks]
        self._handles += handles
        if standing is not None:
            self.standing.append(standing)

        def remove() -> None:
            for handle in handles:
                handle.remove()
            self._handles = [handle for handle in self._handles if handle not in handles]
            self.standing = [item for item in self.standing if item is not standing]

        return remove

    def remove_hooks(self) -> None:
        """Remove every hook that an action has installed; nobody waits for gradients any more."""
        self.faults.shield(HOOKS, self.starts.settle)()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.standing.clear()


class Action(ABC):
    """One kind of adaptation. Subclasses have no state; the table in `tamiyo.host.actions` has one
    object of each.
    """  # noqa: D205

    type: ClassVar[AdaptationType]
    rules: ClassVar[Mapping[str, ParameterRule]]
    """Parameters of the decision and their bounds; others are refused."""
    whole_model: ClassVar[bool] = False
    """Whether the target may be the whole model (an empty target)."""

    def onset(self, parameters: Mapping[str, float | str]) -> int:  # noqa: ARG002
        """Steps after which the network feels all of it; it is not kept earlier than that."""
        return 0

    @abstractmethod
    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether it can really be applied to this layer."""

    @abstractmethod
    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """Apply it to the live run; call it between two optimiser steps.

        Args:
            context: The run.
            target: Layer ids, all of which it applies to; empty is the whole model.
            parameters: Checked and completed by `rules`.

        Raises:
            Refusal: the run's present state does not allow it; nothing was changed.
        """
