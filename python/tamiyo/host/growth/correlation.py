"""Features that the network lacks: incoming weights that explain its remaining error best.

The criterion of Cascade-Correlation (Fahlman and Lebiere, NIPS 1989): a new unit should correlate
with the residual error before anything reads it. Where GradMax chooses outgoing weights and leaves
the incoming ones at zero, this is the other way round.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from tamiyo.host.growth.directions import orthonormal_frame, random_directions
from tamiyo.host.growth.site import GrowthSite, Pass

__all__ = ["correlated"]

_ASCENTS = 60
_CANDIDATES = 8
"""Random starts per unit, of which the best are taken; Cascade-Correlation trains a pool of 8."""
_FIRST_STEP = 0.3
"""Radians, about, that the first step of the ascent turns an incoming direction by."""


def correlated(
    site: GrowthSite,
    passes: Sequence[Pass],
    count: int,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Incoming directions of k units that correlate most with what the readers are asked to change.

    With a(w) the activations of a unit with incoming weights w, as its readers see them, and g the
    gradient at the readers' outputs, each unit goes uphill on the unit sphere, from the best of
    some random starts:

        maximise  -<E[a(w) g], u> / rms(a(w))  with  |w| = 1

    where the directions u of all units are the orthonormal frame that agrees most with their
    E[-a g] / rms(a), so that they share the error out between them.

    Args:
        site: Where units are added.
        passes: At least one recorded pass.
        count: Number of units k.
        generator: Source of the random start, on the CPU.

    Returns:
        Shape [k, incoming_size], rows of norm 1.
    """
    candidates = random_directions(site, _CANDIDATES * count, generator).incoming
    incoming = _most_different(site, passes, candidates.to(passes[0].inputs), count)
    best, most = incoming, -torch.inf
    for ascent in range(_ASCENTS):
        agreement, uphill = _agreement(site, passes, incoming)
        if agreement > most:
            best, most = incoming, agreement
        length = _FIRST_STEP * (1 - ascent / _ASCENTS)
        incoming = functional.normalize(incoming + length * functional.normalize(uphill))
    return best


def _most_different(
    site: GrowthSite, passes: Sequence[Pass], candidates: torch.Tensor, count: int
) -> torch.Tensor:
    """The candidates that agree most with the error, less what those before them explain."""
    _, pull = _pull(site, passes, candidates)
    chosen: list[int] = []
    for _ in range(count):
        norms = pull.norm(dim=1)
        norms[chosen] = -1.0
        chosen.append(int(norms.argmax()))
        explained = functional.normalize(pull[chosen[-1]], dim=0)
        pull = pull - torch.outer(pull @ explained, explained)
    return candidates[chosen]


def _pull(
    site: GrowthSite, passes: Sequence[Pass], weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Root mean square of units' activations, shape [k, 1], and -E[a g] divided by it."""
    size = site.activity(passes, weights).sqrt().unsqueeze(1) + torch.finfo(weights.dtype).tiny
    outgoing = weights.new_zeros(len(weights), sum(site.outgoing_sizes), requires_grad=True)
    with torch.enable_grad():
        effect = site.effect(passes, weights.detach(), outgoing)
        (gradient,) = torch.autograd.grad(effect, outgoing)
    return size, -gradient / size.detach()


def _agreement(
    site: GrowthSite, passes: Sequence[Pass], incoming: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """The sum of the criterion over all units, and its gradient."""
    weights = incoming.detach().clone().requires_grad_()
    with torch.enable_grad():
        size, pull = _pull(site, passes, weights)
        frame = orthonormal_frame(pull)
        agreement = -site.effect(passes, weights, frame / size)
        (uphill,) = torch.autograd.grad(agreement, weights)
    return agreement.item(), uphill
