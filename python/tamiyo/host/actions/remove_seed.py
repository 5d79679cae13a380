"""Blend a seed out and take it away, leaving the bare layer with its present weights."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import ClassVar

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.add_seed import MOST_STEPS
from tamiyo.host.actions.base import (
    Action,
    Choice,
    Context,
    Number,
    ParameterRule,
    Refusal,
    Undo,
)
from tamiyo.host.grafts import is_seeded
from tamiyo.host.layers import Layers
from tamiyo.host.lifecycle import SCHEDULES

__all__ = ["RemoveSeed"]


class RemoveSeed(Action):
    """Lets alpha fall to 0 along a schedule and then takes the seed out; its parameters leave the
    optimiser. A seed that is still isolated goes at once, and nobody feels it.
    """  # noqa: D205

    type = AdaptationType.REMOVE_SEED
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "blending_steps": Number(1, MOST_STEPS, default=50),
        "schedule": Choice(tuple(SCHEDULES), default="cosine"),
    }

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether the layer has a seed."""
        return is_seeded(layers.module(layer_id))

    def onset(self, parameters: Mapping[str, float | str]) -> int:
        """See `Action.onset`."""
        return round(float(parameters["blending_steps"]))

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        seeds = []
        for layer_id in target:
            seed = context.seed_bed.seed(layer_id)
            if seed is None:
                raise Refusal(f"the seed of layer {layer_id} was not planted in this session")
            if seed.retiring:
                raise Refusal(f"the seed of layer {layer_id} is being blended out already")
            seeds.append(seed)
        steps, schedule = round(float(parameters["blending_steps"])), str(parameters["schedule"])
        with ExitStack() as undone:
            for seed in seeds:
                undone.callback(seed.retire(steps, schedule))
            return undone.pop_all().close
