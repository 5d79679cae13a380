"""Take units out of a layer that contribute nothing."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import (
    Action,
    Choice,
    Context,
    Number,
    ParameterRule,
    Refusal,
    Undo,
)
from tamiyo.host.layers import Layers
from tamiyo.host.surgery import Surgery
from tamiyo.host.units import MOST_UNITS, UnitChain, rewire, unit_chain, unit_share

__all__ = ["Prune"]


class Prune(Action):
    """Removes units with everything that feeds and reads them, and their optimiser state.

    A unit is dead if its activation was exactly zero in all rows of the last sample; where it is
    zero for every input, outputs stay as they were, as far as a smaller matrix product sums in the
    same order.
    """

    type = AdaptationType.PRUNE
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "units": Number(1e-3, MOST_UNITS, default=0.5),
        "criterion": Choice(("dead",), default="dead"),
    }
    """`units` is the most that a layer loses: below 1 a fraction of its units, else a number."""

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether everything that carries and reads the layer's units is known."""
        chain = unit_chain(layers, layer_id)
        # Which units of its inner layers are dead is not measured, and all lose equally many.
        stacked = getattr(layers.module(layer_id), "num_layers", 1) > 1
        return chain is not None and chain.units > 1 and not stacked

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        pruned = False
        with Surgery(context.run, context.layers) as surgery, torch.no_grad():
            for layer_id in target:
                chain = unit_chain(context.layers, layer_id)
                if chain is None:
                    raise Refusal(f"what reads the units of layer {layer_id} is not known")
                kept = _kept(context, chain, float(parameters["units"]))
                if len(kept) < chain.units:
                    rewire(surgery, context.layers, chain, kept)
                    for shown in (layer_id, *chain.carriers):
                        context.activity.pop(shown, None)
                    pruned = True
            if not pruned:
                raise Refusal("no unit of the target is dead")
        return surgery.undo


def _kept(context: Context, chain: UnitChain, amount: float) -> torch.Tensor:
    """Units that stay, in their order; at least one."""
    activity = context.activity.get(chain.layer_id)
    if activity is None or len(activity) != chain.units:
        raise Refusal(f"the activity of the units of layer {chain.layer_id} was not measured yet")
    dead = (activity == 0).cpu().nonzero().flatten()
    doomed = dead[: min(unit_share(amount, chain.units), chain.units - 1)]
    alive = torch.ones(chain.units, dtype=torch.bool)
    alive[doomed] = False
    return alive.nonzero().flatten()
