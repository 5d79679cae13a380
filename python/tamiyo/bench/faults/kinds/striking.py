"""F12: what goes wrong in the middle of a run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tamiyo.bench.faults.fault import FAULTS, Cure, Fault, Place, middle_layer
from tamiyo.bench.faults.recipe import Recipe, Strike
from tamiyo.contracts import AdaptationType
from tamiyo.envs import learning_rate_raised

__all__: list[str] = []

ONSET = 0.4
"""Share of the run that is over when it strikes."""


def _struck(recipe: Recipe, **what: Any) -> Recipe:
    return replace(recipe, strike=Strike(round(ONSET * recipe.steps), **what))


def _silence_half(model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
    """Half the units of the layer in the middle lose their incoming weights."""
    layer = model.get_submodule(middle_layer(model)[0])
    with torch.no_grad():
        for name in ("weight", "bias"):
            parameter = layer.get_parameter(name)
            parameter[: len(parameter) // 2] = 0


def _lost(inputs: Tensor) -> Tensor:
    return torch.full_like(inputs, torch.nan)


def _shifted(inputs: Tensor) -> Tensor:
    return inputs + 3


_RESTORE = Cure(AdaptationType.RESTORE, place=Place.RUN, parameters={"learning_rate_factor": 1.0})
_SLOWER = Cure(AdaptationType.SCALE_LEARNING_RATE, place=Place.RUN, parameters={"factor": 1e-2})
_RESTORE_SLOWER = Cure(
    AdaptationType.RESTORE, place=Place.RUN, parameters={"learning_rate_factor": 0.1}
)
_RECYCLED = Cure(AdaptationType.REINITIALIZE, parameters={"scope": "dormant"})
_raised: Callable[..., None] = learning_rate_raised(0, factor=100.0).strike
FAULTS.add(Fault("F12", "rate × 100", partial(_struck, change=_raised), cures=(_RESTORE, _SLOWER)))
FAULTS.add(Fault("F12", "NaN batch", partial(_struck, batch=_lost), cures=(_RESTORE,)))
FAULTS.add(
    Fault("F12", "gradient × 1000", partial(_struck, gradient_factor=1e3), cures=(_RESTORE,))
)
FAULTS.add(
    Fault(
        "F12",
        "half the units 0",
        partial(_struck, change=_silence_half),
        middle_layer,
        (_RECYCLED, _RESTORE),
    )
)
FAULTS.add(
    Fault("F12", "shifted inputs", partial(_struck, inputs=_shifted), cures=(_RESTORE_SLOWER,))
)
