"""Where a layer uses all the units that it has: the effective rank of its activations.

NORTH* (Maile, Rachelson, Luga and Wilson, "When, where, and how to add new neurons to ANNs",
AutoML-Conf 2022, arXiv 2202.08539) adds units where the activations of those that are there are
nearly linearly independent, and none where they repeat each other.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tamiyo.host.faults import Hook
from tamiyo.host.layers import Layers
from tamiyo.host.readers import unit_count
from tamiyo.host.statistics import apply_activation
from tamiyo.host.tracing import TopologyRecorder
from tamiyo.host.training import unwrap

__all__ = ["GAMMA", "TOLERANCE", "RankRecording", "effective_rank", "unit_use", "units_wanted"]

TOLERANCE = 0.01
"""Singular values below this count as zero, as in the paper."""
GAMMA = 0.97
"""Share of its first value that the rank has to keep for a layer to be grown, as in the paper."""
ROWS_PER_UNIT = 4
"""Rows that are kept per unit; of larger batches only some rows are."""
MOST_ROWS = 4096


def effective_rank(activations: torch.Tensor, tolerance: float = TOLERANCE) -> int:
    """Number of singular values of H / sqrt(N) above a tolerance.

    Worked out from the eigenvalues of H^T H / N in double precision, which tells singular values
    apart from zero down to about 1e-8 of the largest one.

    Args:
        activations: H, shape [N, U]: N rows of U units, finite.
        tolerance: The tolerance, in units of the activations.

    Returns:
        Between 0 and min(N, U).
    """
    rows = activations.double()
    gram = rows.T @ rows / len(rows)
    return int((torch.linalg.eigvalsh(gram) > tolerance**2).sum())


def units_wanted(use: float, first_use: float, units: int, gamma: float = GAMMA) -> int:
    """How many units the rule of NORTH* adds to a layer: max(0, floor(M (phi - gamma phi_0))).

    Args:
        use: Effective rank of the layer's activations as a share of its units now, phi.
        first_use: The same at the beginning of the run, phi_0.
        units: Units M that the layer has.
        gamma: Threshold of the rule.

    Returns:
        At least 0; also where a share is not known.
    """
    excess = units * (use - gamma * first_use)
    return max(0, math.floor(excess)) if math.isfinite(excess) else 0


class RankRecording:
    """Takes rows of activations while the caller's own forward passes run.

    It is no part of the probe and costs nothing unless somebody asks: use it as a context manager
    around one or a few training steps.

    Args:
        layers: The layers; those whose output has units are recorded, behind their activations.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._rows: dict[int, list[torch.Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for layer_id in range(len(self._layers)):
            units = unit_count(self._layers.module(layer_id))
            if units is not None:
                self._listen(layer_id, units)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def use(self, tolerance: float = TOLERANCE) -> Mapping[int, float]:
        """Effective rank of each recorded layer's activations as a share of its units, in [0, 1].

        NaN where fewer rows than units were seen, which bounds the rank from above, or where an
        activation was not finite.

        Args:
            tolerance: See `effective_rank`.
        """
        return {
            layer_id: _share(torch.cat(rows), tolerance) if rows else math.nan
            for layer_id, rows in self._rows.items()
        }

    def _listen(self, layer_id: int, units: int) -> None:
        reader, site = self._layers.activated(layer_id)
        seen = reader if site is None or site.layer_id is None else site.layer_id
        activation = site.name if site is not None and site.layer_id is None else None
        second = self._layers.channels_second(reader)
        most = min(MOST_ROWS, ROWS_PER_UNIT * units)
        rows: list[torch.Tensor] = []
        self._rows[layer_id] = rows
        hook = Hook(_keeper(rows, units, most, activation, channels_second=second))
        self._handles.append(self._layers.module(seen).register_forward_hook(hook))


def unit_use(
    model: nn.Module, *inputs: Any, tolerance: float = TOLERANCE, **kwargs: Any
) -> dict[str, float]:
    """Effective rank of the activations of a model's layers as a share of their units.

    Runs the model twice, to trace it and to measure, in its present mode, and leaves parameters,
    buffers and random state exactly as they were.

    Args:
        model: Any module.
        *inputs: Inputs of a forward pass; they should be at least as many as a layer has units.
        tolerance: See `effective_rank`.
        **kwargs: Keyword inputs.

    Returns:
        By layer name a share in [0, 1], NaN where it cannot be known. See `units_wanted`.
    """
    inner = unwrap(model)
    buffers = [(buffer, buffer.detach().clone()) for buffer in inner.buffers()]
    devices = sorted({p.device.index for p in inner.parameters() if p.is_cuda})
    recorder = TopologyRecorder(inner)
    try:
        with torch.random.fork_rng(devices=devices):
            with torch.enable_grad():
                recorder.attach()
                inner(*inputs, **kwargs)
                recorder.detach()
            layers = recorder.layers()
            with torch.no_grad(), RankRecording(layers) as recording:
                inner(*inputs, **kwargs)
    finally:
        recorder.detach()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    shares = recording.use(tolerance)
    return {layers.names[layer_id]: share for layer_id, share in shares.items()}


def _keeper(
    rows: list[torch.Tensor],
    units: int,
    most: int,
    activation: str | None,
    *,
    channels_second: bool,
) -> Callable[..., None]:
    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        room = most - sum(map(len, rows))
        if not isinstance(output, torch.Tensor) or output.dim() < 2 or room <= 0:
            return
        last = output.detach().movedim(1, -1) if channels_second else output.detach()
        every = last.reshape(-1, last.shape[-1])
        if every.shape[1] != units:
            return
        kept = min(len(every), room)
        chosen = every[torch.arange(kept, device=every.device) * len(every) // kept]
        rows.append(apply_activation(activation, chosen.float()))

    return keep


def _share(rows: torch.Tensor, tolerance: float) -> float:
    if len(rows) < rows.shape[1] or not torch.isfinite(rows).all():
        return math.nan
    return effective_rank(rows, tolerance) / rows.shape[1]
