"""Damage that no decision can express, as actions of the host's own kind.

Only the adversary registers them, in place of `reinitialize` in the table of one session. They go
through the same bus, desk, executor and trial as every other action.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions import Action, Context, Refusal, Undo
from tamiyo.host.actions.base import ParameterRule
from tamiyo.host.actions.scale_learning_rate import scale_groups
from tamiyo.host.layers import Layers
from tamiyo.host.surgery import Surgery
from tamiyo.host.units import rewire, unit_chain

__all__ = ["STRIKES", "Sabotage", "Site", "Strike"]


@dataclass(frozen=True, slots=True)
class Site:
    """Where a strike falls."""

    context: Context
    undone: ExitStack
    """Takes what undoes it."""
    random: Random

    def weights(self) -> list[nn.Parameter]:
        """All matrices and kernels of the model."""
        return [p for p in self.context.layers.model.parameters() if p.dim() > 1]

    def weight(self) -> nn.Parameter:
        """One of them at random."""
        return self.random.choice(self.weights())

    def noise(self, like: Tensor) -> Tensor:
        """Normal noise that leaves torch's generators alone."""
        generator = torch.Generator().manual_seed(self.random.getrandbits(32))
        return torch.randn(like.shape, generator=generator).to(like)

    def write(self, tensor: Tensor, value: Tensor | float) -> None:
        """Overwrite a tensor."""
        before = tensor.detach().clone()
        self.undone.callback(lambda: tensor.detach().copy_(before))
        tensor.detach().copy_(torch.as_tensor(value).to(tensor))

    def put(self, holder: dict[str, Any], key: str, value: Any) -> None:
        """Overwrite an entry of a dictionary."""
        before = holder[key]
        self.undone.callback(lambda: holder.__setitem__(key, before))
        holder[key] = value

    def option(self, names: Sequence[str], value: Any) -> None:
        """Overwrite the first of the optimiser's options that exists, in all groups."""
        found = 0
        for group in self.context.run.optimizer.param_groups:
            for name in names:
                if name in group:
                    old = group[name]
                    self.put(group, name, (value, *old[1:]) if isinstance(old, tuple) else value)
                    found += 1
                    break
        if not found:
            raise Refusal(f"the optimiser has no {names[0]}")

    def modules(self, *kinds: type[nn.Module]) -> list[nn.Module]:
        """Modules of some kinds.

        Raises:
            Refusal: there are none.
        """
        found = [m for m in self.context.layers.model.modules() if isinstance(m, kinds)]
        if not found:
            raise Refusal(f"the model has no {kinds[0].__name__}")
        return found


Strike = Callable[[Site], None]


class Sabotage(Action):
    """An action that does harm.

    Args:
        strike: What it does.
        seed: Seeds the choice of the place.
    """

    type = AdaptationType.REINITIALIZE
    rules: ClassVar[Mapping[str, ParameterRule]] = {}
    whole_model = True

    def __init__(self, strike: Strike, seed: int) -> None:
        self._strike = strike
        self._seed = seed

    def applies_to(self, layers: Layers, layer_id: int) -> bool:  # noqa: ARG002
        """It chooses its own place."""
        return False

    def apply(
        self,
        context: Context,
        target: Sequence[int],  # noqa: ARG002
        parameters: Mapping[str, float | str],  # noqa: ARG002
    ) -> Undo:
        """See `Action.apply`."""
        with ExitStack() as undone, torch.no_grad():
            self._strike(Site(context, undone, Random(self._seed)))  # noqa: S311 - no secret
            return undone.pop_all().close


def _scale_rate(factor: float) -> Strike:
    def strike(site: Site) -> None:
        site.undone.callback(scale_groups(site.context.run, factor))

    return strike


def _fill_all(value: float) -> Strike:
    def strike(site: Site) -> None:
        for parameter in site.context.layers.model.parameters():
            site.write(parameter, value)

    return strike


def _fill_one(value: float) -> Strike:
    return lambda site: site.write(site.weight(), value)


def _one_entry(value: float) -> Strike:
    def strike(site: Site) -> None:
        weight = site.weight()
        changed = weight.detach().clone()
        changed.view(-1)[site.random.randrange(changed.numel())] = value
        site.write(weight, changed)

    return strike


def _state_not_finite(site: Site) -> None:
    moments = [
        value
        for state in site.context.run.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.dim()
    ]
    if not moments:
        raise Refusal("the optimiser keeps no moments")
    site.write(site.random.choice(moments), torch.nan)


def _noise(deviations: float) -> Strike:
    def strike(site: Site) -> None:
        for weight in site.weights():
            site.write(weight, weight + deviations * weight.std() * site.noise(weight))

    return strike


def _multiply_one(factor: float) -> Strike:
    def strike(site: Site) -> None:
        weight = site.weight()
        site.write(weight, weight * factor)

    return strike


def _shuffle_one(site: Site) -> None:
    weight = site.weight()
    order = site.noise(weight.detach().view(-1)).argsort()
    site.write(weight, weight.detach().reshape(-1)[order].view_as(weight))


def _redraw_all(site: Site) -> None:
    for weight in site.weights():
        site.write(weight, weight.shape[1:].numel() ** -0.5 * site.noise(weight))


def _quantize(site: Site) -> None:
    for weight in site.weights():
        step = weight.abs().max()
        site.write(weight, (weight / step).round() * step)


def _prune(share: float) -> Strike:
    """Takes working units out of a random layer, by the host's own surgery."""

    def strike(site: Site) -> None:
        layers = site.context.layers
        chains = [chain for i in range(len(layers)) if (chain := unit_chain(layers, i))]
        if not chains:
            raise Refusal("no layer can lose units")
        chain = site.random.choice(chains)
        kept = sorted(site.random.sample(range(chain.units), max(1, round(chain.units * share))))
        with Surgery(site.context.run, layers) as surgery:
            rewire(surgery, layers, chain, torch.tensor(kept))
        site.undone.callback(surgery.undo)

    return strike


def _activations(make: Callable[[], nn.Module], *, share: float = 1.0) -> Strike:
    def strike(site: Site) -> None:
        for old in site.modules(nn.ReLU, nn.GELU, nn.Tanh):
            if site.random.random() > share:
                continue
            for parent in site.context.layers.model.modules():
                for key in [key for key, child in parent._modules.items() if child is old]:
                    site.put(parent._modules, key, make())

    return strike


class _Constant(nn.Module):
    """Lets nothing through."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * 0


class _Sine(nn.Module):
    """Folds large values over small ones."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(5 * inputs)


def _gradients(change: Callable[[Site, Tensor], Tensor]) -> Strike:
    """Changes all gradients before every step."""

    def strike(site: Site) -> None:
        def tamper(*_: Any) -> None:
            with torch.no_grad():
                for parameter in site.context.layers.model.parameters():
                    if parameter.grad is not None:
                        change(site, parameter.grad)

        optimizer = site.context.run.optimizer
        site.undone.callback(site.context.install((optimizer.register_step_pre_hook, tamper)))

    return strike


def _rising_rate(factor: float) -> Strike:
    """Multiplies the learning rate after every step."""

    def strike(site: Site) -> None:
        def rise(*_: Any) -> None:
            scale_groups(site.context.run, factor)

        optimizer = site.context.run.optimizer
        site.undone.callback(site.context.install((optimizer.register_step_post_hook, rise)))

    return strike


def _freeze(site: Site) -> None:
    for parameter in site.context.layers.model.parameters():
        site.undone.callback(parameter.requires_grad_, parameter.requires_grad)
        parameter.requires_grad_(site.random.random() < 0.2)
    next(iter(site.weights())).requires_grad_(True)


def _dropout(site: Site) -> None:
    for module in site.modules(nn.Dropout):
        site.put(module.__dict__, "p", 0.95)


def _norm_statistics(value: float, names: Sequence[str]) -> Strike:
    def strike(site: Site) -> None:
        for module in site.modules(nn.BatchNorm2d, nn.BatchNorm1d):
            for name in names:
                site.write(module.get_buffer(name), value)

    return strike


def _norm_momentum(site: Site) -> None:
    """Running statistics that no longer follow: shows only in evaluation."""
    for module in site.modules(nn.BatchNorm2d, nn.BatchNorm1d):
        site.put(module.__dict__, "momentum", 0.0)
        site.write(module.get_buffer("running_var"), 1e-2)


STRIKES: Mapping[str, Strike] = {
    "rate × 1e6": _scale_rate(1e6),
    "rate × 0": _scale_rate(0.0),
    "rate × −1": _scale_rate(-1.0),
    "rate rising by 2 % a step": _rising_rate(1.02),
    "rate rising by 5 % a step": _rising_rate(1.05),
    "all weights zero": _fill_all(0.0),
    "one layer zero": _fill_one(0.0),
    "all weights equal": _fill_all(0.05),
    "all weights NaN": _fill_all(torch.nan),
    "one weight NaN": _one_entry(torch.nan),
    "one weight infinite": _one_entry(torch.inf),
    "one weight 1e4": _one_entry(1e4),
    "optimiser state NaN": _state_not_finite,
    "noise of 1 σ": _noise(1.0),
    "noise of 3 σ": _noise(3.0),
    "all weights redrawn": _redraw_all,
    "weights in three levels": _quantize,
    "one layer × 30": _multiply_one(30.0),
    "one layer × 0.01": _multiply_one(0.01),
    "one layer × −1": _multiply_one(-1.0),
    "one layer shuffled": _shuffle_one,
    "half of a layer pruned": _prune(0.5),
    "90 % of a layer pruned": _prune(0.1),
    "one unit left": _prune(0.0),
    "activations → sigmoid": _activations(nn.Sigmoid),
    "activations → sine": _activations(_Sine),
    "activations → nothing": _activations(_Constant),
    "activations → identity": _activations(nn.Identity),
    "gradients negated": _gradients(lambda _, gradient: gradient.neg_()),
    "gradients are noise": _gradients(lambda site, gradient: gradient.copy_(site.noise(gradient))),
    "momentum .999": lambda site: site.option(("betas", "alpha", "momentum"), 0.999),
    "weight decay 1": lambda site: site.option(("weight_decay",), 1.0),
    "most layers frozen": _freeze,
    "dropout .95": _dropout,
    "normalisation statistics NaN": _norm_statistics(torch.nan, ("running_var",)),
    "normalisation statistics stale": _norm_momentum,
}
"""What each does to the run, by a name for tables."""
