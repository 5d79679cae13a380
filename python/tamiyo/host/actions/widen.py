"""Add units to a layer without changing what the network computes."""

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
from tamiyo.host.modules import unit_axis
from tamiyo.host.surgery import Surgery
from tamiyo.host.units import (
    MOST_UNITS,
    NewUnits,
    UnitChain,
    draw_units,
    rewire,
    unit_chain,
    unit_share,
)

__all__ = ["Widen"]


class Widen(Action):
    """Adds units to a linear or convolutional layer.

    `zero_outgoing` draws incoming weights by the layer's own scheme and leaves the outgoing ones at
    zero: outputs and the gradients of everything that was there stay exactly as they were, as far
    as a larger matrix product sums in the same order. `net2net` repeats units chosen at random and
    shares their outgoing weights out unevenly, so that the copies part in training (Chen et al.,
    ICLR 2016, arXiv 1511.05641); it preserves the function to rounding. Under dropout either holds
    in evaluation, and in training but for the random masks, which are drawn for more units. New
    entries of the optimiser's state are zero.
    """

    type = AdaptationType.WIDEN
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "units": Number(1e-3, MOST_UNITS, default=0.25),
        "initialization": Choice(("zero_outgoing", "net2net"), default="zero_outgoing"),
    }
    """`units` below 1 is a fraction of the layer's present units, else their number."""

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether everything that carries and reads the layer's units is known and trained."""
        chain = unit_chain(layers, layer_id)
        return chain is not None and all(
            layers.module(i).get_parameter("weight").requires_grad
            for i in (layer_id, *(reader.layer_id for reader in chain.readers))
        )

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        with (
            Surgery(context.run, context.layers) as surgery,
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
        ):
            torch.default_generator.manual_seed(context.seed)
            for layer_id in target:
                chain = unit_chain(context.layers, layer_id)
                if chain is None:
                    raise Refusal(f"what reads the units of layer {layer_id} is not known")
                count = unit_share(float(parameters["units"]), chain.units)
                if chain.units + count > MOST_UNITS:
                    raise Refusal(f"layer {layer_id} would have more than {MOST_UNITS} units")
                if parameters["initialization"] == "net2net":
                    _repeat(surgery, context.layers, chain, count)
                else:
                    new = draw_units(context.layers.module(layer_id), count)
                    rewire(surgery, context.layers, chain, _grown(chain, count), new)
                for shown in (layer_id, *chain.carriers):
                    context.activity.pop(shown, None)
        return surgery.undo


def _grown(chain: UnitChain, count: int) -> torch.Tensor:
    return torch.cat([torch.arange(chain.units), torch.full((count,), -1)])


def _repeat(surgery: Surgery, layers: Layers, chain: UnitChain, count: int) -> None:
    """Net2WiderNet with unequal shares."""
    module = layers.module(chain.layer_id)
    sources = torch.randint(chain.units, (count,))
    whole = torch.cat([torch.arange(chain.units), sources])
    drawn = torch.rand(len(whole), dtype=torch.float64) + 0.5
    total = torch.zeros(chain.units, dtype=torch.float64).index_add_(0, whole, drawn)
    shares = drawn / total[whole]
    weight, bias = module.get_parameter("weight").detach(), module._parameters["bias"]
    places = sources.to(weight.device)
    new = NewUnits(
        weight.index_select(unit_axis(module) or 0, places),
        None if bias is None else bias.detach()[places],
        sources,
    )
    for reader, outgoing in rewire(surgery, layers, chain, _grown(chain, count), new):
        shape = [1] * outgoing.dim()
        shape[reader.axis] = -1
        outgoing.mul_(shares.repeat_interleave(reader.width).view(shape).to(outgoing))
