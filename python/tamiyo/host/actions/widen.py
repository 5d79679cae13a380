"""Add units to a layer without changing what the network computes."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import ClassVar

import torch

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import (
    HOOKS,
    Action,
    Choice,
    Context,
    Number,
    ParameterRule,
    Refusal,
    Undo,
)
from tamiyo.host.compiled import is_compiled
from tamiyo.host.growth.chains import growth_site
from tamiyo.host.growth.start import GRADIENT_METHODS, DeferredStart, Sprout
from tamiyo.host.layers import Layers
from tamiyo.host.readers import unit_makers
from tamiyo.host.recurrent import is_recurrent
from tamiyo.host.surgery import Surgery
from tamiyo.host.units import (
    MOST_UNITS,
    UnitChain,
    draw_units,
    repeated_units,
    rewire,
    silent_units,
    unit_chain,
    unit_share,
)

__all__ = ["MOST_GRADIENT_STEPS", "Widen", "check_gradients"]

MOST_GRADIENT_STEPS = 64


class Widen(Action):
    """Adds units to a linear, convolutional or recurrent layer.

    How they begin is `initialization`:

    `zero_outgoing` draws incoming weights by the layer's own scheme and leaves the outgoing ones at
    zero: outputs and the gradients of everything that was there stay exactly as they were, as far
    as a larger matrix product sums in the same order.

    `net2net` repeats units chosen at random and shares their outgoing weights out unevenly, so that
    the copies part in training (Chen et al., ICLR 2016, arXiv 1511.05641); it preserves the
    function to rounding.

    `gradmax` gives them incoming weights of zero and those outgoing weights for which their
    gradient is largest (Evci et al., ICLR 2022, arXiv 2201.05125). The gradients are recorded
    during the next `gradient_steps` steps, for which the units stay silent. Behind an activation
    with a kink at zero incoming weights are 2^-100 instead (2^-14 in half precision), which is lost
    in rounding, because torch never trains a rectified unit that is exactly zero.

    `gradmax_rectified` is the same, improved for activations with a kink, see
    `tamiyo.host.growth.directions.rectified`; with other activations they are equal.

    `correlated` gives them incoming weights of the usual norm whose activations correlate most with
    the gradient at the layers that read them, and outgoing weights of zero (the criterion of
    Fahlman and Lebiere, NIPS 1989; `tamiyo.host.growth.correlation`). It is recorded likewise.

    `random` is what GradMax is to be compared with: outgoing weights of the same norm in a random
    direction.

    Recurrent layers begin in the first two ways only: the gradients that the others record come
    from many time steps at once. All stacked layers of a module get the units, and each reads its
    own new ones with weights of zero, too.

    Under dropout all hold in evaluation, and in training but for the random masks, which are drawn
    for more units. New entries of the optimiser's state are zero.
    """

    type = AdaptationType.WIDEN
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "units": Number(1e-3, MOST_UNITS, default=0.25),
        "initialization": Choice(
            ("zero_outgoing", "net2net", "random", *GRADIENT_METHODS), default="zero_outgoing"
        ),
        "gradient_steps": Number(1, MOST_GRADIENT_STEPS, default=4),
    }
    """`units` below 1 is a fraction of the layer's present units, else their number."""

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether everything that carries and reads the layer's units is known and trained."""
        chain = unit_chain(layers, layer_id)
        if chain is None:
            return False
        made = unit_makers(layers.module(layer_id), every_layer=True)[0]
        names = [(layer_id, made.name), *((r.layer_id, r.name) for r in chain.readers)]
        return all(layers.module(i).get_parameter(name).requires_grad for i, name in names)

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        method = str(parameters["initialization"])
        if method == "net2net" and context.run.companions:
            raise Refusal("an average of the weights cannot follow net2net")
        if method in GRADIENT_METHODS:
            check_gradients(context)
        with (
            ExitStack() as undone,
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
        ):
            surgery = Surgery(context.run, context.layers)
            undone.callback(surgery.undo)
            torch.default_generator.manual_seed(context.seed)
            sprouts = [
                sprout
                for layer_id in target
                for sprout in _widen(surgery, context, layer_id, parameters)
            ]
            if method in GRADIENT_METHODS:
                steps = round(float(parameters["gradient_steps"]))
                shield = partial(context.faults.shield, HOOKS)
                start = DeferredStart(sprouts, method, steps, context.seed, shield)
                undone.callback(context.defer(start))
            for sprout in sprouts if method == "random" else ():
                sprout.begin_at_random(half=context.run.scaler is not None)
            return undone.pop_all().close


def check_gradients(context: Context) -> None:
    """Whether what the hooks of this process see are the gradients of the run.

    Raises:
        Refusal: they would not be called, or see a part of the batch only.
    """
    if is_compiled(context.run.model):
        raise Refusal("the gradients inside a compiled model cannot be recorded")
    if context.run.other_ranks:
        raise Refusal("each process sees the gradients of its own part of the batch only")


def _widen(
    surgery: Surgery, context: Context, layer_id: int, parameters: Mapping[str, float | str]
) -> Sequence[Sprout]:
    """Give one layer more units.

    Returns:
        The new units if they are still silent and somebody has to let them begin.

    Raises:
        Refusal: the layer cannot have so many, or not begin in such a way.
    """
    layers, method = context.layers, parameters["initialization"]
    chain = unit_chain(layers, layer_id)
    if chain is None:
        raise Refusal(f"what reads the units of layer {layer_id} is not known")
    count = unit_share(float(parameters["units"]), chain.units)
    if chain.units + count > MOST_UNITS:
        raise Refusal(f"layer {layer_id} would have more than {MOST_UNITS} units")
    index = torch.cat([torch.arange(chain.units), torch.full((count,), -1)])
    sprouts, readers = [], [reader.layer_id for reader in chain.readers]
    if method == "net2net":
        _repeat(surgery, layers, chain, index)
    elif method == "zero_outgoing":
        rewire(surgery, layers, chain, index, draw_units(layers.module(layer_id), count))
    elif any(is_recurrent(layers.module(i)) for i in (layer_id, *readers)):
        raise Refusal(f"next to a recurrent layer units cannot begin by {method}")
    else:
        sprouts.append(_sprout(layers, chain, count, correlated=method == "correlated"))
        rewire(surgery, layers, chain, index, silent_units(layers.module(layer_id), count))
    for shown in (layer_id, *chain.carriers):
        context.activity.pop(shown, None)
    return sprouts


def _sprout(layers: Layers, chain: UnitChain, count: int, *, correlated: bool) -> Sprout:
    site = growth_site(layers, chain)
    if site.normalized and not correlated:
        raise Refusal("a batch normalisation would blow up units whose incoming weights are zero")
    if count > site.most_directions and not correlated:
        raise Refusal(
            f"only {site.most_directions} units of layer {chain.layer_id} can begin in different "
            f"directions, not {count}"
        )
    return Sprout(site, chain.units, count)


def _repeat(surgery: Surgery, layers: Layers, chain: UnitChain, index: torch.Tensor) -> None:
    """Net2WiderNet with unequal shares."""
    module = layers.module(chain.layer_id)
    sources = torch.randint(chain.units, (len(index) - chain.units,))
    whole = torch.cat([torch.arange(chain.units), sources])
    drawn = torch.rand(len(whole), dtype=torch.float64) + 0.5
    total = torch.zeros(chain.units, dtype=torch.float64).index_add_(0, whole, drawn)
    shares = drawn / total[whole]
    new = repeated_units(module, sources)
    for reader, outgoing in rewire(surgery, layers, chain, index, new):
        shape = [1] * outgoing.dim()
        shape[reader.axis] = -1
        outgoing.mul_(shares.repeat_interleave(reader.width).view(shape).to(outgoing))
