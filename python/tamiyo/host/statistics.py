"""Statistics of a layer's units from a small sample of rows, and of its parameters in batches."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch.nn import functional

__all__ = [
    "MAX_ROWS",
    "MAX_UNITS",
    "apply_activation",
    "dead_ratio",
    "layer_norms",
    "sample_rows",
    "saturated_ratio",
    "spread_units",
    "unit_moments",
]

MAX_ROWS = 64
MAX_UNITS = 32
DEAD_BELOW = 1e-5
"""A unit is dead if no row moves it further than this from zero (TheDeepChecker's bound)."""
SATURATED_BEYOND = 5.0
"""Input beyond which tanh or sigmoid is saturated (DeepDiagnosis)."""

_BOUNDED: Mapping[str, tuple[float, float]] = {
    name: (float(function(torch.tensor(-edge))), float(function(torch.tensor(edge))))
    for name, function, edge in (
        ("tanh", torch.tanh, SATURATED_BEYOND),
        ("sigmoid", torch.sigmoid, SATURATED_BEYOND),
        ("hardtanh", functional.hardtanh, 1.0),
        ("hardsigmoid", functional.hardsigmoid, 3.0),
        ("softsign", functional.softsign, 50.0),
    )
}
"""Outputs of bounded activations at the edges of their responsive range."""


def sample_rows(output: torch.Tensor, *, channels_second: bool) -> torch.Tensor:
    """Up to 64 rows of a layer's output with all its units, shape [R, U].

    Rows are spread over the batch. Positions of one sample (pixels, tokens) are not independent, so
    more than one row per sample is taken only from batches of fewer than 64 samples.

    Args:
        output: Shape [B, U, ...] with `channels_second`, else [B, ..., U].
        channels_second: Whether units lie along axis 1.
    """
    if output.dim() < 2:
        return output.reshape(1, -1).clone()
    if channels_second:
        output = output.flatten(2).transpose(1, 2) if output.dim() > 2 else output.unsqueeze(1)
    else:
        output = output.reshape(output.shape[0], -1, output.shape[-1])
    batch, positions, _ = output.shape
    return output[_spread(batch, positions, output.device)]


@lru_cache(maxsize=512)
def _spread(batch: int, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of samples and positions of up to 64 rows."""
    rows = min(batch * positions, MAX_ROWS)
    number = torch.arange(rows, device=device)
    sample = number * batch // rows if batch >= rows else number % batch
    # A stride coprime to most sizes, so that neighbours in the batch differ in position.
    position = (number * 7919 + number // batch) % positions
    return sample, position


def spread_units(rows: torch.Tensor, units: int) -> torch.Tensor:
    """At most `units` evenly spread columns of `rows`, shape [R, min(U, units)]."""
    width = rows.shape[1]
    return rows if width <= units else rows[:, _columns(width, units, rows.device)]


@lru_cache(maxsize=512)
def _columns(width: int, units: int, device: torch.device) -> torch.Tensor:
    return torch.arange(units, device=device) * width // units


def apply_activation(name: str | None, rows: torch.Tensor) -> torch.Tensor:
    """What the rows look like after an activation, given by its name in `torch.nn.functional`."""
    if name is None or name == "prelu":
        return rows
    if name == "log_sigmoid":
        return functional.logsigmoid(rows)
    if name == "rrelu":
        return functional.rrelu(rows, training=False)
    function = getattr(torch, name, None) or getattr(functional, name)
    return torch.as_tensor(function(rows))


def unit_moments(slices: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance and correlation of units from slices of one row count, in one batch.

    Args:
        slices: L tensors of shape [R, at most 32], finite, float.

    Returns:
        `(variance, correlation)`, both shape [L]. Variance is the mean over units of the unbiased
        row variance (NaN for R < 2). Correlation is the mean Pearson r over pairs of units that
        vary, each with the first-order Olkin-Pratt (1958) correction r + r(1 - r^2) / (2(n - 3)),
        which takes out the shrinkage of small samples if rows are independent (NaN for R < 5 or
        fewer than two such units).
    """
    rows = slices[0].shape[0]
    units = max(piece.shape[1] for piece in slices)
    batch = torch.stack([functional.pad(piece, (0, units - piece.shape[1])) for piece in slices])
    widths = torch.tensor([piece.shape[1] for piece in slices], device=batch.device)
    if rows < 2:
        missing = torch.full((len(slices),), torch.nan, device=batch.device)
        return missing, missing
    centred = batch - batch.mean(dim=1, keepdim=True)
    gram = centred.transpose(1, 2) @ centred / (rows - 1)
    variances = gram.diagonal(dim1=1, dim2=2)
    variance = variances.sum(dim=1) / widths
    scale = batch.square().mean(dim=1)
    # Of a constant unit only rounding noise is left, and noise of two units correlates by chance.
    varies = variances > 1e-10 * scale
    pairs = varies.unsqueeze(1) & varies.unsqueeze(2)
    pairs &= ~torch.eye(units, dtype=torch.bool, device=batch.device)
    deviation = variances.clamp_min(torch.finfo(batch.dtype).tiny).sqrt()
    r = (gram / deviation.unsqueeze(1) / deviation.unsqueeze(2)).clamp(-1, 1)
    if rows < 5:
        return variance, torch.full_like(variance, torch.nan)
    corrected = (r + r * (1 - r * r) / (2 * (rows - 3))).clamp(-1, 1)
    correlation = torch.where(pairs, corrected, 0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))
    return variance, correlation


def dead_ratio(sizes: torch.Tensor) -> torch.Tensor:
    """Share of units that no row activates; `sizes` [R, U] are absolute activations."""
    return (sizes.amax(dim=0) <= DEAD_BELOW).float().mean()


def saturated_ratio(activation: str | None, rows: torch.Tensor) -> torch.Tensor:
    """Share of units that more than half of the rows drive into saturation.

    Args:
        activation: Name of the activation; only bounded ones saturate, for others it is NaN.
        rows: Shape [R, U], after the activation.
    """
    if activation is None or activation not in _BOUNDED:
        return rows.new_full((), torch.nan)
    low, high = _BOUNDED[activation]
    beyond = (rows <= low) | (rows >= high)
    return (beyond.float().mean(dim=0) > 0.5).float().mean()


def layer_norms(
    tensors: Sequence[torch.Tensor], layer_ids: Sequence[int], layers: int
) -> torch.Tensor:
    """L2 norm over the tensors of each layer, in double precision.

    Args:
        tensors: Gradients, weights or differences, of any shape.
        layer_ids: The layer of each tensor.
        layers: Number of layers N.

    Returns:
        Shape [N]; NaN for layers without tensors, infinite where a value is not finite.
    """
    if not tensors:
        return torch.full((layers,), torch.nan, dtype=torch.float64)
    device = tensors[0].device
    norms = torch.stack([n.to(device, torch.float64) for n in torch._foreach_norm(list(tensors))])
    index = torch.tensor(layer_ids, device=device)
    squares = torch.zeros(layers, dtype=torch.float64, device=device)
    squares.index_add_(0, index, norms.square())
    present = torch.zeros(layers, dtype=torch.bool, device=device)
    present[index] = True
    return torch.where(present, torch.nan_to_num(squares.sqrt(), torch.inf, torch.inf), torch.nan)
