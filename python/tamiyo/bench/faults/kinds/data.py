"""F8 and F10: inputs that are not normalised, labels that are wrong or of one class."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tamiyo.bench.faults.data import Dataset
from tamiyo.bench.faults.fault import FAULTS, Cure, Fault, Place
from tamiyo.bench.faults.recipe import Recipe
from tamiyo.contracts import AdaptationType

__all__: list[str] = []

_SEED = 0
"""Which labels are wrong, or left out, is part of the fault."""


def _inputs(recipe: Recipe, *, change: Callable[[Tensor], Tensor]) -> Recipe:
    """With all inputs changed, as where a normalisation was forgotten: the held-out ones, too."""
    (train, labels), (held_out, their) = recipe.data.train, recipe.data.held_out
    data = Dataset((change(train), labels), (change(held_out), their))
    return replace(recipe, data=data)


def _scaled(inputs: Tensor) -> Tensor:
    return 100 * inputs


def _shifted(inputs: Tensor) -> Tensor:
    return inputs + 50


def _noisy(recipe: Recipe, *, share: float) -> Recipe:
    """So many of the labels that are trained on are those of another class."""
    (inputs, labels), classes = recipe.data.train, recipe.data.classes
    generator = torch.Generator().manual_seed(_SEED)
    wrong = torch.rand(len(labels), generator=generator) < share
    others = torch.randint(1, classes, (len(labels),), generator=generator)
    noisy = torch.where(wrong, (labels + others) % classes, labels)
    return replace(recipe, data=Dataset((inputs, noisy), recipe.data.held_out))


def _imbalanced(recipe: Recipe, *, share: float) -> Recipe:
    """So much of what is trained on is of class 0; what is held out is balanced as before.

    Samples of the other classes are left out, those of class 0 are repeated.
    """
    inputs, labels = recipe.data.train
    common, rare = (labels == 0).nonzero()[:, 0], (labels != 0).nonzero()[:, 0]
    count = len(labels)
    generator = torch.Generator().manual_seed(_SEED)
    rare = rare[torch.randperm(len(rare), generator=generator)[: round((1 - share) * count)]]
    common = common[torch.arange(count - len(rare)) % len(common)]
    chosen = torch.cat([common, rare])
    return replace(recipe, data=Dataset((inputs[chosen], labels[chosen]), recipe.data.held_out))


_REDRAWN = Cure(AdaptationType.REINITIALIZE, Place.HIDDEN, {"scope": "all"})
_SLOWER = Cure(
    AdaptationType.SCALE_LEARNING_RATE,
    place=Place.RUN,
    parameters={"factor": 1e-3},
    then=(_REDRAWN,),
)
FAULTS.add(Fault("F8", "× 100", partial(_inputs, change=_scaled), cures=(_SLOWER,)))
# With a common offset a hundred times what tells samples apart, no rate is right.
FAULTS.add(Fault("F8", "+ 50", partial(_inputs, change=_shifted)))
FAULTS.add(Fault("F10", "40 % noise", partial(_noisy, share=0.4)))
FAULTS.add(Fault("F10", "95:5", partial(_imbalanced, share=0.95)))
