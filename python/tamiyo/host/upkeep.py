"""Keeps what was built around a model in step with what the model consists of."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from tamiyo.host.compiled import EagerSteps
from tamiyo.host.distributed import Reducer
from tamiyo.host.lifecycle import Stage
from tamiyo.host.seeds import Seed

__all__ = ["Upkeep"]


class Upkeep:
    """Has the gradient reducer and compiled graphs made anew when the model was restructured.

    Args:
        model: The user's module (unwrapped).
        eager: Knows whether anything is compiled.
    """

    def __init__(self, model: nn.Module, eager: EagerSteps) -> None:
        self.reducer: Reducer | None = None
        """Of a data-parallel run, once its wrapper is known."""
        self._model = model
        self._eager = eager
        self._parts = self._present()
        self.growing = False
        """Whether a seed is on its way, and may change its shape at any step."""

    @property
    def changed(self) -> bool:
        """Whether the model consists of other modules, parameters or buffers than at the last
        `settle`.
        """  # noqa: D205
        present = self._present()
        return len(present) != len(self._parts) or any(
            now is not then for now, then in zip(present, self._parts, strict=True)
        )

    def objection(self) -> str:
        """Why a change that was made cannot be followed; empty if it can, or there was none."""
        return self.reducer.objection() if self.reducer is not None and self.changed else ""

    def settle(self) -> None:
        """Follow a change if there was one. Call it between two optimiser steps."""
        if self.changed:
            self._parts = self._present()
            if self.reducer is not None:
                self.reducer.rebuild()
            self._eager.forget_graphs()

    def tend(self, seeds: Iterable[Seed]) -> None:
        """The same after a step in which seeds may have grown."""
        growing = any(not seed.stage.ended and seed.stage is not Stage.PERMANENT for seed in seeds)
        if growing or self.growing:
            self.settle()
        self.growing = growing

    def _present(self) -> Sequence[nn.Module | torch.Tensor]:
        model = self._model
        return [*model.modules(), *model.parameters(), *model.buffers()]
