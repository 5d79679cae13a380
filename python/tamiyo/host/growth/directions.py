"""In which directions new units should begin, from the gradients of a few passes.

GradMax (Evci et al., ICLR 2022, arXiv 2201.05125) gives new units incoming weights of zero, so that
nothing changes at first, and those outgoing weights of a given norm for which the gradient of their
incoming weights is largest: the left singular vectors of the covariance of the gradient at the
readers' outputs with the input of the layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from tamiyo.host.growth.site import GrowthSite, Pass

__all__ = ["Directions", "largest_gradient", "orthonormal_frame", "random_directions", "rectified"]

_ITERATIONS = 8
_OVERSAMPLING = 16
_ALTERNATIONS = 24


class Directions(NamedTuple):
    """Unit vectors for k new units."""

    incoming: torch.Tensor
    """Shape [k, incoming_size]: where the first steps of gradient descent take the incoming
    weights."""
    outgoing: torch.Tensor
    """Shape [k, outgoing weights of a unit]."""


def random_directions(
    site: GrowthSite, count: int, generator: torch.Generator | None = None
) -> Directions:
    """The baseline of GradMax's authors: independent random directions on the CPU.

    Args:
        site: Where units are added.
        count: How many, k.
        generator: Source of random numbers.
    """
    sizes = site.incoming_size, sum(site.outgoing_sizes)
    drawn = [torch.randn(count, size, generator=generator) for size in sizes]
    return Directions(*(torch.nn.functional.normalize(rows) for rows in drawn))


def largest_gradient(
    site: GrowthSite,
    passes: Sequence[Pass],
    count: int,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, Directions]:
    """GradMax's directions: singular vectors of the map from outgoing weights to the gradient.

    The map is never written out. It is applied to blocks of vectors (randomised subspace iteration,
    Halko et al., SIAM Review 2011, arXiv 0909.4061), so that convolutions with any geometry and
    pooling are covered. It is exact where the layer has at most k + 16 directions.

    Args:
        site: Where units are added.
        passes: At least one recorded pass.
        count: Number of units k, at most `site.most_directions`.
        generator: Source of the random start, on the CPU.

    Returns:
        The k largest singular values in falling order, shape [k], and the directions, mutually
        orthogonal on either side. Incoming directions point against the gradient.
    """
    like = passes[0].inputs
    block = min(site.most_directions, count + _OVERSAMPLING)
    start = torch.randn(sum(site.outgoing_sizes), block, generator=generator).to(like)
    basis = torch.linalg.qr(start).Q
    for _ in range(_ITERATIONS):
        image = torch.linalg.qr(_gradient(site, passes, basis.T).T).Q
        basis = torch.linalg.qr(_adjoint(site, passes, image.T).T).Q
    left, values, right = torch.linalg.svd(_gradient(site, passes, basis.T).T, full_matrices=False)
    outgoing = (basis @ right.T).T[:count]
    return values[:count], Directions(-left.T[:count], outgoing)


def rectified(site: GrowthSite, passes: Sequence[Pass], directions: Directions) -> Directions:
    """Directions along which the loss falls fastest through an activation with a kink.

    Behind a rectifier a unit is open for only half of its inputs once it has taken its first step,
    and of the two signs that a pair of singular vectors may have, GradMax leaves open which half
    that is. Here the better sign is taken, and then incoming and outgoing directions are improved
    in turn: the outgoing ones are the orthonormal frame, and each incoming one is the unit vector,
    that lower the loss most to first order with the others as they are.

    Args:
        site: Where units are added.
        passes: At least one recorded pass.
        directions: Where to start from.

    Returns:
        The directions with the largest total decrease that were met.
    """
    incoming, outgoing = _better_signs(site, passes, directions)
    best, most = Directions(incoming, outgoing), -torch.inf
    for _ in range(_ALTERNATIONS):
        _, pull = _slopes(site, passes, incoming, outgoing)
        outgoing = orthonormal_frame(-pull)
        push, pull = _slopes(site, passes, incoming, outgoing)
        decrease = float(-(pull * outgoing).sum())
        if decrease > most:
            best, most = Directions(incoming, outgoing), decrease
        norms = push.norm(dim=1, keepdim=True)
        incoming = torch.where(norms > 0, -push / norms, incoming)
    return best


def orthonormal_frame(rows: torch.Tensor) -> torch.Tensor:
    """The orthonormal rows that agree most with given ones: their polar factor.

    Args:
        rows: Shape [k, n]; for k > n the columns of the result are orthonormal instead.
    """
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    return torch.mm(left, right)


def _gradient(
    site: GrowthSite,
    passes: Sequence[Pass],
    outgoing: torch.Tensor,
    *,
    differentiable: bool = False,
) -> torch.Tensor:
    """Gradient of silent units' incoming weights, shape [k, incoming_size]."""
    silent = outgoing.new_zeros(len(outgoing), site.incoming_size, requires_grad=True)
    with torch.enable_grad():
        effect = site.effect(passes, silent, outgoing, linear=True)
        (gradient,) = torch.autograd.grad(effect, silent, create_graph=differentiable)
    return gradient


def _adjoint(site: GrowthSite, passes: Sequence[Pass], incoming: torch.Tensor) -> torch.Tensor:
    """The transpose of `_gradient`, shape [k, outgoing weights of a unit]."""
    size = sum(site.outgoing_sizes)
    outgoing = incoming.new_zeros(len(incoming), size, requires_grad=True)
    gradient = _gradient(site, passes, outgoing, differentiable=True)
    (image,) = torch.autograd.grad(gradient, outgoing, incoming)
    return image


def _slopes(
    site: GrowthSite, passes: Sequence[Pass], incoming: torch.Tensor, outgoing: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the first-order effect with respect to both sides' weights."""
    sides = [side.detach().clone().requires_grad_() for side in (incoming, outgoing)]
    with torch.enable_grad():
        push, pull = torch.autograd.grad(site.effect(passes, *sides), sides)
    return push, pull


def _better_signs(
    site: GrowthSite, passes: Sequence[Pass], directions: Directions
) -> tuple[torch.Tensor, torch.Tensor]:
    incoming, outgoing = directions
    _, ahead = _slopes(site, passes, incoming, outgoing)
    _, behind = _slopes(site, passes, -incoming, outgoing)
    # Both signs go downhill; the effect of the opposite pair is that of its incoming side, negated.
    flip = (-behind * outgoing).sum(dim=1) < (ahead * outgoing).sum(dim=1)
    sign = torch.where(flip, -1.0, 1.0).unsqueeze(1).to(incoming)
    return incoming * sign, outgoing * sign
