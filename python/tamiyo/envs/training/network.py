"""The networks of a cohort as views of its tensors, level by level, made once for many steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tamiyo.envs.training.activations import KindGroup, group_kinds
from tamiyo.envs.training.data import CLASSES
from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.weights import Weights

__all__ = ["Level", "Network", "connect"]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The hidden layers at one level, of the n first hosts; P is the width."""

    hosts: int
    """n."""
    weight: Tensor
    """[n, in, P]."""
    bias: Tensor
    """[n, 1, P]."""
    bias_gradient: Tensor
    """[n, P], room for it."""
    units: Tensor
    """[n, P], bool: which units exist."""
    kinds: Sequence[KindGroup]
    """Which layers have which activation."""
    residual: Tensor | None
    """[n, 1, 1]: 1 where a layer adds its input to its output, else 0; none where no layer does."""
    ending: slice
    """Hosts whose last hidden layer this is."""
    skip: Tensor | None
    """[ending, 1, 1]: 1 for those whose first hidden layer's output is added here, else 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """H networks."""

    levels: Sequence[Level]
    last: Tensor
    """[H, P, 10]: weights of the last layers."""
    last_bias: Tensor
    """[H, 1, 10]."""
    last_bias_gradient: Tensor
    """[H, 10], room for it."""
    bias_gradient: Tensor
    """[R + H, P]: all the rooms for gradients of biases."""
    skip: Tensor | None
    """[H, 1, 1]: 1 for hosts that are wired so, else 0."""


def connect(
    layout: Layout, weights: Weights, units: Tensor, kinds: Tensor, bias_gradient: Tensor
) -> Network:
    """The networks as they are wired now.

    Args:
        layout: The hosts.
        weights: Their parameters, which are changed in place from here on.
        units: [R, P], likewise.
        kinds: [R], activations; call this again after a change.
        bias_gradient: [R + H, P], room for the gradients of biases.
    """
    wirings = [spec.wiring if spec.hidden > 1 else "plain" for spec in layout.specs]
    last = slice(layout.hidden_rows, None)

    def chosen(wiring: str, hosts: slice) -> Tensor | None:
        share = [float(one == wiring) for one in wirings[hosts]]
        return weights.bias.new_tensor(share)[:, None, None] if any(share) else None

    def level(number: int, count: int) -> Level:
        rows, ending = layout.rows_at(number), layout.ending_at(number)
        return Level(
            hosts=count,
            weight=weights.level(layout, number),
            bias=weights.bias[rows, None],
            bias_gradient=bias_gradient[rows],
            units=units[rows],
            kinds=group_kinds(kinds[rows]),
            residual=chosen("residual", slice(0, count)) if number else None,
            ending=ending,
            skip=chosen("skip", ending),
        )

    return Network(
        levels=[level(number, count) for number, count in enumerate(layout.counts)],
        last=weights.last,
        last_bias=weights.bias[last, None, :CLASSES],
        last_bias_gradient=bias_gradient[last, :CLASSES],
        bias_gradient=bias_gradient,
        skip=chosen("skip", slice(None)),
    )
