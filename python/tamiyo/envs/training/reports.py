"""What the hosts have reported about themselves as a whole."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.medians import row_median

__all__ = ["LATEST", "ReportHistory"]

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

BLOCK, BLOCKS = 16, 16
"""Losses in a block, and blocks in the slow level (`tamiyo.host.watch.LossHistory`)."""
LATEST = (
    "loss",
    "nonfinite",
    "level",
    "held_out_loss",
    "accuracy",
    "learning_rate",
    "progress",
    "snapshot",
)
"""What a report has in it: median training loss since the one before, and how many were not finite;
slow robust level of the training loss; loss and accuracy on held-out data; learning rate; share of
the planned run; whether there is a snapshot. NaN is what it does not say."""


@dataclass
class ReportHistory:
    """The model-level reports of H hosts."""

    hosts: int
    loss: list[Floats] = field(default_factory=list)
    """[H] for each moment; NaN for hosts that did not report then."""
    held_out_loss: list[Floats] = field(default_factory=list)
    learning_rate: list[Floats] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.latest: dict[str, Floats] = {name: np.full(self.hosts, np.nan) for name in LATEST}
        """What each host's newest report says, [H] by the names in `LATEST`."""
        self.reported = np.zeros(self.hosts, bool)
        """[H]: who reported at the last moment."""
        self._pending: Floats = np.empty((self.hosts, 0))
        self._block = np.full((self.hosts, BLOCK), np.nan)
        self._filled = np.zeros(self.hosts, np.int64)
        self._blocks = np.full((self.hosts, BLOCKS), np.nan)
        self._next = np.zeros(self.hosts, np.int64)

    def add(self, losses: Floats, due: Bools, **present: Floats) -> None:
        """Take what has happened since the last moment.

        Args:
            losses: [H, k], NaN and all.
            due: [H], who reports now.
            present: [H] each, what they would report besides losses.
        """
        finite = np.isfinite(losses)
        for column in range(losses.shape[1]):
            self._advance(losses[:, column], finite[:, column])
        # What was reported already is NaN, what was not finite infinite.
        self._pending = np.hstack([self._pending, np.where(finite, losses, np.inf)])
        report = {
            "loss": row_median(np.where(np.isinf(self._pending), np.nan, self._pending)),
            "nonfinite": np.isinf(self._pending).sum(axis=1).astype(np.float64),
            "level": row_median(self._blocks),
            **present,
        }
        for name, values in report.items():
            self.latest[name] = np.where(due, values, self.latest[name])
        for name in ("loss", "held_out_loss", "learning_rate"):
            getattr(self, name).append(np.where(due, report[name], np.nan))
        self._pending[due] = np.nan
        self._pending = self._pending[:, ~np.isnan(self._pending).all(axis=0)]
        self.reported = due

    def _advance(self, loss: Floats, finite: Bools) -> None:
        rows = np.flatnonzero(finite)
        self._block[rows, self._filled[rows]] = loss[rows]
        self._filled[rows] += 1
        full = np.flatnonzero(self._filled == BLOCK)
        if len(full):
            self._blocks[full, self._next[full] % BLOCKS] = np.median(self._block[full], axis=1)
            self._next[full] += 1
            self._filled[full] = 0
