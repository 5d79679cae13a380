"""Temperatures for a network's probabilities, fitted on states it was not trained on."""

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.learn.graphs import pack
from tamiyo.learn.head_losses import weighted_mean
from tamiyo.learn.imitation.demonstrations import Demonstrations
from tamiyo.learn.segments import TARGETS
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.calibration import Calibration

__all__ = ["fit_calibration", "fit_temperature"]

LOWEST, HIGHEST = 0.25, 8.0
"""Bounds of a temperature: what few samples ask for beyond them is an accident."""
BATCH = 1024


def fit_temperature(logits: Tensor, truth: Tensor, weights: Tensor) -> float:
    """The divisor of the logits that makes the truth likeliest (Guo et al., ICML 2017).

    Args:
        logits: [M].
        truth: [M], 0 or 1.
        weights: [M].

    Returns:
        1 where either answer never occurs: nothing can be said then.
    """
    if not 0.0 < float(truth.mean()) < 1.0:
        return 1.0
    logits, truth, weights = logits.double(), truth.double(), weights.double()
    # In the logarithm of the temperature the loss has one minimum; a grid cannot miss it.
    grid = torch.logspace(
        torch.tensor(LOWEST).log10(), torch.tensor(HIGHEST).log10(), 500, dtype=torch.double
    )
    entropy = functional.binary_cross_entropy_with_logits
    losses = torch.stack(
        [weighted_mean(entropy(logits / one, truth, reduction="none"), weights) for one in grid]
    )
    return float(grid[losses.argmin()])


@torch.no_grad()
def fit_calibration(policy: EnhancedTamiyoPolicyGNN, demonstrations: Demonstrations) -> Calibration:
    """Temperatures of *adapt?* against the expert's answer, and of safety against outcomes.

    Args:
        policy: The network.
        demonstrations: Fresh ones, with the policy as the pupil.
    """
    device = policy.device
    adapt, able, safety = [], [], []
    for index in torch.arange(len(demonstrations)).split(BATCH):
        outputs = policy(pack(demonstrations[index].observations).to(device))
        adapt.append(outputs["distribution"].adapt_logit.cpu())
        able.append(outputs["distribution"].can_adapt.cpu())
        safety.append(torch.logit(outputs["safety_score"], eps=1e-6).cpu())
    chosen = torch.cat(able)
    outcome = demonstrations.targets[:, TARGETS.index("safety")]
    known = ~outcome.isnan()
    weights = demonstrations.weights
    return Calibration(
        fit_temperature(
            torch.cat(adapt)[chosen], demonstrations.action.adapt.float()[chosen], weights[chosen]
        ),
        fit_temperature(torch.cat(safety)[known], outcome[known], weights[known]),
    )
