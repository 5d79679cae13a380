"""Adaptations of hosts, with the effects that the host's own actions have on live models.

`tamiyo.host.actions` documents each. The policy chooses a type and a target; where an adaptation
needs a number, it follows from what was measured (`tamiyo.policy.dosage`, as for live decisions),
so that one decision can cure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import ACTIVATIONS, fresh_layer
from tamiyo.envs.training.snapshots import SnapshotKeeper
from tamiyo.envs.training.weights import Weights
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import dosage

__all__ = ["OFFERED", "Clinic"]

OFFERED = (
    AdaptationType.WIDEN,
    AdaptationType.PRUNE,
    AdaptationType.REINITIALIZE,
    AdaptationType.CHANGE_ACTIVATION,
    AdaptationType.SCALE_LEARNING_RATE,
    AdaptationType.CLIP_GRADIENTS,
    AdaptationType.RESTORE,
)
"""Seeds and inserted normalisations are never legal here."""

LEAKY = ACTIVATIONS.index("leaky_relu")
COLUMN = {adaptation: ACTIONS.index(adaptation) for adaptation in OFFERED}

Bools = npt.NDArray[np.bool_]


@dataclass
class Clinic:
    """Says what may be done to the hosts of a cohort, and does it.

    Args:
        cohort: The hosts.
        keeper: Their snapshots.
        nodes: N, to which masks are padded.
        random: Draws new weights.
    """

    cohort: Cohort
    keeper: SnapshotKeeper
    nodes: int
    random: np.random.Generator
    activity: Tensor = field(init=False)
    """[R, P]: mean absolute activation of each unit at the last reading."""
    update_ratio: npt.NDArray[np.float64] = field(init=False)
    """[H, N], at the last reading."""

    def __post_init__(self) -> None:
        layout, cohort = self.cohort.layout, self.cohort
        hidden = layout.hidden_rows
        summed = [
            cohort.specs[host].summed(layer)
            for host, layer in zip(layout.host_of[:hidden], layout.layer_of[:hidden], strict=True)
        ]
        self._own_units = ~np.array(summed)
        self.activity = torch.ones_like(cohort.units, dtype=cohort.dtype)
        self.update_ratio = np.full((layout.hosts, self.nodes), np.nan)

    def masks(self) -> tuple[Bools, Bools]:
        """What can be done to each layer [H, N, types], and to each run as a whole [H, types]."""
        cohort, layout = self.cohort, self.cohort.layout
        hidden, host, layer = layout.hidden_rows, layout.host_of, layout.layer_of
        units = cohort.units.cpu().numpy()
        width = units.sum(axis=1)
        dead = ((self.activity == 0) & cohort.units).any(dim=1).cpu().numpy()
        finite = self.activity.isfinite().all(dim=1).cpu().numpy()
        rows = np.zeros((layout.rows, len(ACTIONS)), bool)
        rows[:, COLUMN[AdaptationType.SCALE_LEARNING_RATE]] = True
        rows[:, COLUMN[AdaptationType.CLIP_GRADIENTS]] = cohort.clip_ratio.isinf().cpu().numpy()
        own = self._own_units
        rows[:hidden, COLUMN[AdaptationType.WIDEN]] = own & (width < cohort.width)
        rows[:hidden, COLUMN[AdaptationType.PRUNE]] = own & dead & (width > 1)
        rows[:hidden, COLUMN[AdaptationType.REINITIALIZE]] = own & finite
        other = (cohort.kinds != LEAKY).cpu().numpy()
        rows[:hidden, COLUMN[AdaptationType.CHANGE_ACTIVATION]] = other
        mask = np.zeros((layout.hosts, self.nodes, len(ACTIONS)), bool)
        mask[host, 2 * layer] = rows
        column = COLUMN[AdaptationType.CHANGE_ACTIVATION]
        mask[host[:hidden], 2 * layer[:hidden] + 1, column] = other
        model = np.zeros((layout.hosts, len(ACTIONS)), bool)
        model[:, COLUMN[AdaptationType.SCALE_LEARNING_RATE]] = True
        model[:, COLUMN[AdaptationType.CLIP_GRADIENTS]] = True
        model[:, COLUMN[AdaptationType.RESTORE]] = self.keeper.good.cpu().numpy()
        return mask, model

    @torch.no_grad()
    def apply(self, host: int, node: int, adaptation: AdaptationType) -> None:
        """Adapt one host, between two steps; the masks must allow it.

        Args:
            host: Which.
            node: The layer's node, or -1 for the run as a whole.
            adaptation: What to do.
        """
        row = -1 if node < 0 else int(self.cohort.layout.row_of[host, node // 2])
        match adaptation:
            case AdaptationType.SCALE_LEARNING_RATE:
                self._scale_rate(host, node, row)
            case AdaptationType.CLIP_GRADIENTS:
                self._clip(host, row)
            case AdaptationType.CHANGE_ACTIVATION:
                self.cohort.kinds[row] = LEAKY
                self.cohort.rewire()
            case AdaptationType.REINITIALIZE:
                self._reinitialize(host, row)
            case AdaptationType.WIDEN:
                self._widen(host, row)
            case AdaptationType.PRUNE:
                self._prune(host, row)
            case AdaptationType.RESTORE:
                self.keeper.restore(self._only(host), dosage.RESTORE_RATE)
            case _:
                raise ValueError(f"{adaptation} is not offered here")

    def _only(self, host: int) -> Tensor:
        mask = torch.zeros(self.cohort.hosts, dtype=torch.bool, device=self.cohort.device)
        mask[host] = True
        return mask

    def _scale_rate(self, host: int, node: int, row: int) -> None:
        ratios = self.update_ratio[host]
        if row < 0:
            rows = self.cohort.host_of == host
            self.cohort.learning_rate[rows] *= dosage.run_rate_factor(ratios)
        else:
            factor = dosage.layer_rate_factor(float(ratios[node]), ratios)
            self.cohort.rate_factor[row] *= factor

    def _clip(self, host: int, row: int) -> None:
        layout = self.cohort.layout
        last = layout.hidden[host]
        chosen = layout.row_of[host, :last] if row < 0 else [row]
        self.cohort.clip_ratio[torch.as_tensor(chosen, device=self.cohort.device)] = (
            dosage.CLIP_RATIO
        )
        self.cohort.rewire()

    def _reinitialize(self, host: int, row: int) -> None:
        cohort = self.cohort
        active, units = self.activity[row], cohort.units[row]
        dormant = units & (active <= dosage.DORMANT * active[units].mean())
        norm = float(cohort.weights.row(row).norm())
        whole = not dormant.any() or dosage.is_too_large(norm, int(units.sum()))
        recycled = units if whole else dormant
        self._draw_incoming(host, row, recycled, with_bias=False)
        reader = self._reader(host, row)
        silent = bool((recycled == units).all()) and reader < cohort.layout.hidden_rows
        fresh = (
            self._fresh(host, reader) if silent else torch.zeros_like(cohort.weights.row(reader))
        )
        self._overwrite(reader, recycled[:, None], fresh)

    def _widen(self, host: int, row: int) -> None:
        cohort, layout = self.cohort, self.cohort.layout
        widths = cohort.units[layout.row_of[host, : layout.hidden[host]]].sum(dim=1)
        width = int(cohort.units[row].sum())
        more = dosage.units_to_add(width, widths.tolist())
        free = (~cohort.units[row]).nonzero()[:, 0][:more]
        added = torch.zeros_like(cohort.units[row])
        added[free] = True
        cohort.units[row] |= added
        self._draw_incoming(host, row, added, with_bias=True)
        reader = self._reader(host, row)
        nothing = torch.zeros_like(cohort.weights.row(reader))
        self._overwrite(reader, added[:, None], nothing)
        self.activity[row] = torch.where(added, self.activity[row].mean(), self.activity[row])
        self._restructured(host)

    def _prune(self, host: int, row: int) -> None:
        cohort = self.cohort
        units = cohort.units[row]
        dead = (units & (self.activity[row] == 0)).nonzero()[:, 0]
        most = dosage.units_to_remove(int(units.sum()))
        removed = torch.zeros_like(units)
        removed[dead[:most]] = True
        cohort.units[row] &= ~removed
        for target, mask in ((row, removed), (self._reader(host, row), removed[:, None])):
            self._overwrite(target, mask, torch.zeros_like(cohort.weights.row(target)))
        self._overwrite_bias(row, removed, torch.zeros_like(cohort.weights.bias[row]))
        self._restructured(host)

    def _restructured(self, host: int) -> None:
        self.keeper.forget(self._only(host))

    def _reader(self, host: int, row: int) -> int:
        return int(self.cohort.layout.row_of[host, self.cohort.layout.layer_of[row] + 1])

    def _fresh(self, host: int, row: int) -> Tensor:
        """New weights of a row by PyTorch's scheme, padded."""
        cohort = self.cohort
        weight, inputs = cohort.weights.row(row), self._inputs(host, row)
        drawn = fresh_layer(self.random, int(inputs.sum()), weight.shape[1])
        fresh = torch.zeros_like(weight)
        fresh[inputs] = torch.as_tensor(drawn, device=cohort.device, dtype=cohort.dtype)
        if row < cohort.layout.hidden_rows:
            fresh *= cohort.units[row]
        return fresh

    def _inputs(self, host: int, row: int) -> Tensor:
        """Which inputs of a row exist, a mask."""
        cohort, layout = self.cohort, self.cohort.layout
        layer = int(layout.layer_of[row])
        if layer:
            return cohort.units[int(layout.row_of[host, layer - 1])]
        features = torch.arange(len(cohort.weights.row(row)), device=cohort.device)
        return features < cohort.specs[host].dataset.features

    def _draw_incoming(self, host: int, row: int, units: Tensor, *, with_bias: bool) -> None:
        """Fresh incoming weights of some units [P]; their biases are drawn likewise or zero."""
        fresh = self._fresh(host, row)
        self._overwrite(row, units, fresh)
        bias = torch.zeros_like(self.cohort.weights.bias[row])
        if with_bias:
            bound = 1.0 / np.sqrt(max(int((fresh != 0).any(dim=1).sum()), 1))
            drawn = self.random.uniform(-bound, bound, len(bias))
            bias = torch.as_tensor(drawn, device=bias.device, dtype=bias.dtype)
        self._overwrite_bias(row, units, bias)

    def _overwrite(self, row: int, mask: Tensor, values: Tensor) -> None:
        """Replace weights of a row where a mask says so, and blank their moments."""
        self.cohort.weights.row(row).copy_(torch.where(mask, values, self.cohort.weights.row(row)))
        for moments in self._moments():
            moments.row(row).masked_fill_(mask, 0.0)

    def _overwrite_bias(self, row: int, mask: Tensor, values: Tensor) -> None:
        bias = self.cohort.weights.bias[row]
        bias.copy_(torch.where(mask, values, bias))
        for moments in self._moments():
            moments.bias[row].masked_fill_(mask, 0.0)

    def _moments(self) -> Sequence[Weights]:
        state = self.cohort.optimizer
        return [state.first] if state.second is None else [state.first, state.second]
