"""Health columns of every layer of every host, with the definitions of the live probe.

`tamiyo.host.probe` reads one model through hooks; here the same numbers come from the stacked
tensors of a metered step. Nodes are those of a traced host: linear layer `i` is node `2 i`, the
activation behind it node `2 i + 1`. Missing values are NaN, and so are nodes that do not exist.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.contracts import Flag
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import ACTIVATIONS, Activation
from tamiyo.envs.training.medians import row_median
from tamiyo.envs.training.meter import StepMeter
from tamiyo.host.health import BANDS
from tamiyo.host.statistics import DEAD_BELOW, MAX_UNITS, SATURATED_BEYOND

__all__ = ["Reading", "activity", "health", "measure", "multiplications", "parameter_counts"]

Floats: TypeAlias = npt.NDArray[np.float64]
Reading: TypeAlias = Mapping[str, npt.NDArray[np.float64]]
"""Columns [H, N] by the names of the signal fields, with `flags` and `error_count`."""

_BOUNDED: Sequence[tuple[Activation, Callable[[Tensor], Tensor]]] = (
    ("tanh", torch.tanh),
    ("sigmoid", torch.sigmoid),
)
_BOUNDS: Mapping[Activation, Sequence[float]] = {
    kind: [float(function(torch.tensor(edge))) for edge in (-SATURATED_BEYOND, SATURATED_BEYOND)]
    for kind, function in _BOUNDED
}


@dataclass(frozen=True, slots=True)
class _UnitTable:
    """Statistics of the units of n layers, each [n]."""

    variance: Tensor
    correlation: Tensor
    finite: Tensor
    """0, or NaN where any value is not finite."""

    def stacked(self) -> Tensor:
        return torch.stack([self.variance, self.correlation, self.finite])


def measure(cohort: Cohort, meter: StepMeter, nodes: int) -> Reading:
    """Measure one training step.

    Args:
        cohort: The hosts, after the step.
        meter: What was shown the step.
        nodes: N, at least twice the number of linear layers of the deepest host, minus one.
    """
    with torch.no_grad():
        table = _statistics(cohort, meter).cpu().numpy()
    layout = cohort.layout
    host, layer, hidden = layout.host_of, layout.layer_of, layout.hidden_rows
    linear, active = table[:, : layout.rows], table[:, layout.rows :]

    def scatter(row: int, *, behind: bool = True) -> Floats:
        column = np.full((layout.hosts, nodes), np.nan)
        column[host, 2 * layer] = linear[row]
        if behind:
            column[host[:hidden], 2 * layer[:hidden] + 1] = active[row]
        return column

    columns = {name: scatter(row) for row, name in enumerate(_UNIT_ROWS)}
    norms = {
        name: scatter(len(_UNIT_ROWS) + row, behind=False) for row, name in enumerate(_NORM_ROWS)
    }
    exists = np.arange(nodes) < 2 * layout.hidden[:, None] + 1
    return _finished(columns, norms, exists, parameter_counts(cohort, nodes))


def activity(meter: StepMeter) -> Tensor:
    """[R, P]: mean absolute activation of every hidden unit in a metered step."""
    return torch.cat([active.abs().mean(dim=1) for active in meter.passed.active])


def parameter_counts(cohort: Cohort, nodes: int) -> Floats:
    """[H, N]: scalar parameters of each node; 0 for activations, NaN where there is no node."""
    layout = cohort.layout
    host, layer, hidden = layout.host_of, layout.layer_of, layout.hidden_rows
    inputs, outputs = _shapes(cohort)
    counts = np.full((layout.hosts, nodes), np.nan)
    counts[host, 2 * layer] = (inputs + 1) * outputs
    counts[host[:hidden], 2 * layer[:hidden] + 1] = 0.0
    return counts


def multiplications(cohort: Cohort) -> Floats:
    """[H]: in the forward pass of one sample; the backward pass takes twice as many."""
    inputs, outputs = _shapes(cohort)
    return np.bincount(cohort.layout.host_of, weights=inputs * outputs).astype(np.float64)


def _shapes(cohort: Cohort) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """[R + H] each: inputs and outputs of every linear layer that exist."""
    layout = cohort.layout
    host, layer = layout.host_of, layout.layer_of
    classes = [spec.dataset.classes for spec in cohort.specs]
    outputs = np.concatenate([cohort.units.sum(dim=1).cpu().numpy(), classes])
    features = np.array([spec.dataset.features for spec in cohort.specs])[host]
    before = outputs[layout.row_of[host, np.maximum(layer - 1, 0)]]
    return np.where(layer > 0, before, features), outputs


_UNIT_ROWS = ("activation_variance", "avg_correlation", "finite", "dead_neuron_ratio", "saturation")
_NORM_ROWS = ("gradient_norm", "weight_norm", "update_ratio")


def _statistics(cohort: Cohort, meter: StepMeter) -> Tensor:
    """[8, (R + H) + R]: rows as named above, of linear layers and then of activations."""
    layout, passed, classes = cohort.layout, meter.passed, _classes(cohort)
    linear, active = torch.cat(passed.linear), torch.cat(passed.active)
    logits = torch.where(classes[:, None], passed.logits, 0.0)
    columns = _select_columns(cohort.units)
    tables = [
        _unit_table(linear, *columns),
        _unit_table(logits, *_select_columns(classes)),
        _unit_table(active, *columns),
    ]
    dead = _share(active.abs().amax(dim=1) <= DEAD_BELOW, cohort.units)
    output_dead = _share(logits.abs().amax(dim=1) <= DEAD_BELOW, classes)
    saturated = _saturated(cohort, active)
    output_saturated = torch.full_like(output_dead, torch.nan)
    upper = torch.cat([table.stacked() for table in tables], dim=1)
    middle = torch.stack(
        [
            torch.cat([dead, output_dead, dead]),
            torch.cat([saturated, output_saturated, saturated]),
        ]
    )
    norms = torch.full((3, upper.shape[1]), torch.nan, dtype=torch.float64, device=upper.device)
    norms[:, : layout.rows] = meter.norms()
    return torch.cat([upper.double(), middle.double(), norms])


def _classes(cohort: Cohort) -> Tensor:
    return (cohort.impossible[:, 0] == 0.0).to(cohort.device)


def _select_columns(units: Tensor) -> tuple[Tensor, Tensor]:
    """Up to 32 evenly spread units of each layer, as the live probe takes them.

    Args:
        units: [n, P], bool.

    Returns:
        Their places [n, U], and the number of units [n] that are sampled; places beyond that are
        of units that do not count.
    """
    width = units.sum(dim=1)
    sampled = width.clamp_max(MAX_UNITS)
    # Existing units first, in their order.
    order = torch.argsort(~units, dim=1, stable=True)
    number = torch.arange(min(units.shape[1], MAX_UNITS), device=units.device)
    spread = number * width[:, None] // MAX_UNITS
    place = torch.where((width > MAX_UNITS)[:, None], spread, number)
    return order.gather(1, place.clamp_max(units.shape[1] - 1)), sampled


def _unit_table(values: Tensor, places: Tensor, sampled: Tensor) -> _UnitTable:
    """See `tamiyo.host.statistics.unit_moments`; values are [n, B, P]."""
    count, rows, _ = values.shape
    width = places.shape[1]
    batch = values.gather(2, places[:, None].expand(count, rows, width))
    missing = torch.arange(width, device=values.device) >= sampled[:, None]
    scale = batch.square().mean(dim=1)
    centred = batch - batch.mean(dim=1, keepdim=True)
    gram = (centred.mT @ centred).div_(rows - 1)
    variances = gram.diagonal(dim1=1, dim2=2).masked_fill(missing, 0.0)
    varies = variances > 1e-10 * scale
    inverse = variances.clamp_min(torch.finfo(values.dtype).tiny).rsqrt() * varies
    r = gram.mul_(inverse[:, :, None]).mul_(inverse[:, None]).clamp_(-1.0, 1.0)
    bias = r.square().neg_().add_(1.0).div_(2.0 * (rows - 3))
    corrected = r.addcmul_(r, bias).clamp_(-1.0, 1.0)
    own = corrected.diagonal(dim1=1, dim2=2).sum(dim=1)
    some = varies.sum(dim=1)
    return _UnitTable(
        variance=variances.sum(dim=1) / sampled,
        correlation=(corrected.sum(dim=(1, 2)) - own) / (some * (some - 1)),
        finite=values.sum(dim=(1, 2)) * 0.0,
    )


def _saturated(cohort: Cohort, active: Tensor) -> Tensor:
    """[R]: share of the units of each hidden row that are saturated, NaN if they cannot be."""
    column = active.new_full((len(active),), torch.nan)
    for kind, (low, high) in _BOUNDS.items():
        index = (cohort.kinds == ACTIVATIONS.index(kind)).nonzero()[:, 0]
        if len(index):
            outputs = active[index]
            beyond = (outputs <= low) | (outputs >= high)
            often = beyond.to(active.dtype).mean(dim=1) > 0.5
            column[index] = _share(often, cohort.units[index]).to(column.dtype)
    return column


def _share(units: Tensor, existing: Tensor) -> Tensor:
    """Share [n] of the existing units [n, P] for which something holds."""
    return (units & existing).sum(dim=1) / existing.sum(dim=1)


def _finished(
    columns: dict[str, Floats],
    norms: Mapping[str, Floats],
    exists: npt.NDArray[np.bool_],
    parameters: Floats,
) -> Reading:
    """Flags instead of what is not finite, and the health score."""
    finite = columns.pop("finite")
    broken = (np.isnan(finite) & exists) | np.isinf(columns["activation_variance"])
    flags = np.where(broken, int(Flag.NONFINITE_ACTIVATION), 0)
    flags |= np.where(np.isinf(norms["gradient_norm"]), int(Flag.NONFINITE_GRADIENT), 0)
    weight = np.isinf(norms["weight_norm"]) | np.isinf(norms["update_ratio"])
    flags |= np.where(weight, int(Flag.NONFINITE_WEIGHT), 0)
    reading = {name: np.where(broken, np.nan, column) for name, column in columns.items()}
    reading |= {name: np.where(np.isinf(norm), np.nan, norm) for name, norm in norms.items()}
    errors = np.where(exists, (flags > 0).astype(np.float64), np.nan)
    score = health(reading, parameters, errors)
    return reading | {"health_score": score, "flags": flags, "error_count": errors}


def health(reading: Reading, parameters: Floats, errors: Floats) -> Floats:
    """[H, N] health scores: `tamiyo.host.health.health_scores` for many models at once."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = reading["gradient_norm"] / np.sqrt(parameters)
    inputs = {**reading, "relative_gradient": _relative(rms)}
    scores = np.stack([band.score(inputs[name]) for name, band in BANDS.items()])
    measured = ~np.isnan(scores)
    score = np.where(measured, scores, 1.0).prod(axis=0)
    return np.where(errors > 0, 0.0, np.where(measured.any(axis=0), score, np.nan))


def _relative(rms: Floats) -> Floats:
    """Quotients by each host's median; NaN with fewer than two values or a median of zero."""
    median = row_median(np.where(np.isfinite(rms), rms, np.nan))
    few = np.isfinite(rms).sum(axis=1) < 2
    median[few | (median == 0)] = np.nan
    return np.where(np.isfinite(rms), rms / median[:, None], np.nan)
