"""Gives new units their first weights, at once or after the gradients of a few steps are known."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tamiyo.host.growth.correlation import correlated
from tamiyo.host.growth.directions import (
    Directions,
    largest_gradient,
    random_directions,
    rectified,
)
from tamiyo.host.growth.recording import MOST_ROWS, GradientRecording, Shield
from tamiyo.host.growth.site import GrowthSite, Pass
from tamiyo.host.modules import unit_axis
from tamiyo.host.units import draw_units

__all__ = ["GRADIENT_METHODS", "DeferredStart", "DeferredStarts", "Sprout"]

logger = logging.getLogger("tamiyo.host")

GRADIENT_METHODS = ("gradmax", "gradmax_rectified", "correlated")
"""Initialisations that need gradients of the run."""
PATIENCE = 4
"""Steps without usable gradients, in multiples of those asked for, before giving up."""
_BARELY = 2.0**-100
_BARELY_HALF = 2.0**-14
"""Size of incoming weights where zero itself would never be trained: what such units add to a
network is lost in rounding, while a rectifier is open for half of their inputs."""


@dataclass(frozen=True, slots=True)
class Sprout:
    """New units at the end of a layer, with incoming and outgoing weights of zero."""

    site: GrowthSite
    first: int
    """Number of the first new unit: the layer has had so many before."""
    count: int

    @torch.no_grad()
    def begin(self, directions: Directions, *, half: bool = False) -> None:
        """Let the units begin in these directions, with the norm that outgoing weights have.

        Incoming weights stay zero, where the activation has a kink all but zero.

        Args:
            directions: One for each of the units.
            half: Whether the layer computes in half precision.
        """
        weight = self.site.layer.get_parameter("weight")
        if self.site.kinked:
            size = _BARELY_HALF if half else _BARELY
            incoming = self.site.incoming(directions.incoming * size)
            weight.narrow(self.site.axis, self.first, self.count).copy_(incoming)
        outgoing = self.site.outgoing(directions.outgoing * self._usual_norm())
        for outlet, values in zip(self.site.outlets, outgoing, strict=True):
            reading = outlet.reader.get_parameter("weight")
            start, length = self.first * outlet.width, self.count * outlet.width
            reading.narrow(outlet.axis, start, length).copy_(values)

    def begin_at_random(self, *, half: bool = False) -> None:
        """The same in random directions, the baseline of GradMax's authors."""
        self.begin(random_directions(self.site, self.count), half=half)

    @torch.no_grad()
    def begin_correlated(self, incoming: torch.Tensor) -> None:
        """Give the units incoming weights of the usual norm; the outgoing ones stay zero.

        Args:
            incoming: Directions, shape [count, incoming_size].
        """
        weight = self.site.layer.get_parameter("weight")
        norms = weight.movedim(self.site.axis, 0).flatten(1)[: self.first].float().norm(dim=1)
        values = self.site.incoming(incoming * float(norms.mean()))
        weight.narrow(self.site.axis, self.first, self.count).copy_(values)

    @torch.no_grad()
    def begin_anew(self) -> None:
        """Draw incoming weights by the layer's own scheme and leave the outgoing ones at zero."""
        layer = self.site.layer
        drawn = draw_units(layer, self.count)
        weight = layer.get_parameter("weight")
        weight.narrow(self.site.axis, self.first, self.count).copy_(drawn.weight)
        if drawn.bias is not None:
            layer.get_parameter("bias").narrow(0, self.first, self.count).copy_(drawn.bias)

    def _usual_norm(self) -> float:
        """Mean norm of the outgoing weights of the units that were there before.

        Where there were none, or only silent ones, it is what the readers' own initialisation
        gives. Taken over from GradMax's authors, who scale every new unit like this.
        """
        held = [outlet.reader.get_parameter("weight") for outlet in self.site.outlets]
        flat = [o.flatten(w) for o, w in zip(self.site.outlets, held, strict=True)]
        norms = torch.cat(flat, dim=1)[: self.first].float().norm(dim=1)
        if len(norms) and float(norms.mean()) > 0:
            return float(norms.mean())
        drawn = [_drawn(outlet.reader) for outlet in self.site.outlets]
        flat = [o.flatten(w) for o, w in zip(self.site.outlets, drawn, strict=True)]
        return float(torch.cat(flat, dim=1).float().norm(dim=1).mean())


@dataclass(slots=True)
class DeferredStart:
    """Sprouts that wait, silent, until the gradients of some steps say where to begin.

    While they wait they get no gradient, since they have zeros on both sides: the network trains
    as it would without them. If no usable gradients come they begin anew, with outgoing weights of
    zero.

    Args:
        sprouts: What waits.
        method: One of `GRADIENT_METHODS`.
        steps: Optimiser steps to record.
        seed: Seeds what is drawn.
        shield: Keeps errors of hooks out of the training loop.
    """

    sprouts: Sequence[Sprout]
    method: str
    steps: int
    seed: int
    shield: Shield
    _recordings: Sequence[GradientRecording] = ()
    _waited: int = 0
    _useful: int = 0
    _complete: int = 0

    @property
    def waiting(self) -> bool:
        """Whether it records."""
        return bool(self._recordings)

    def listen(self) -> None:
        """Begin to record."""
        rows = max(1, MOST_ROWS // self.steps)
        self._recordings = [
            GradientRecording(sprout.site, rows, self.shield) for sprout in self.sprouts
        ]
        for recording in self._recordings:
            recording.attach()

    def tick(self) -> None:
        """An optimiser step is done."""
        before = self._complete
        self._complete = min(recording.count for recording in self._recordings)
        self._waited += 1
        self._useful += self._complete > before
        if self._useful >= self.steps or self._waited >= PATIENCE * self.steps:
            self.settle()

    def settle(self) -> None:
        """End the wait: the units begin with what has been recorded so far."""
        recordings = self._recordings
        self.stop()
        generator = torch.Generator().manual_seed(self.seed)
        for sprout, recording in zip(self.sprouts, recordings, strict=True):
            passes = recording.passes()
            if not passes:
                logger.warning("tamiyo: no gradients reached a growing layer; its units are drawn")
                sprout.begin_anew()
            elif self.method == "correlated":
                incoming = correlated(sprout.site, passes, sprout.count, generator)
                sprout.begin_correlated(incoming)
            else:
                found = _directions(sprout, passes, self.method, generator)
                sprout.begin(found, half=recording.half)

    def stop(self) -> None:
        """End the wait and leave the units silent, for they are being taken out."""
        for recording in self._recordings:
            recording.detach()
        self._recordings = ()


class DeferredStarts:
    """All sprouts of a session that wait."""

    def __init__(self) -> None:
        self._starts: list[DeferredStart] = []

    def add(self, start: DeferredStart) -> Callable[[], None]:
        """Let one begin to record; returns what ends that again."""
        start.listen()
        self._starts.append(start)
        return start.stop

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return any(start.waiting for start in self._starts)

    def tick(self, *_: object) -> None:
        """An optimiser step is done."""
        self._each(DeferredStart.tick)

    def settle(self) -> None:
        """End of the session: nobody waits any more."""
        self._each(DeferredStart.settle)

    def _each(self, act: Callable[[DeferredStart], None]) -> None:
        for start in [start for start in self._starts if start.waiting]:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(start.seed)
                act(start)
        self._starts = [start for start in self._starts if start.waiting]


def _directions(
    sprout: Sprout, passes: Sequence[Pass], method: str, generator: torch.Generator
) -> Directions:
    _, found = largest_gradient(sprout.site, passes, sprout.count, generator)
    if method == "gradmax_rectified" and sprout.site.kinked:
        found = rectified(sprout.site, passes, found)
    return found


def _drawn(reader: nn.Module) -> torch.Tensor:
    """A whole weight by a layer's own initialisation, on the CPU."""
    axis = unit_axis(reader) or 0
    return draw_units(reader, reader.get_parameter("weight").shape[axis]).weight
