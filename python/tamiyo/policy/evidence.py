"""What the rules look at: fresh per-layer readings, and the run's loss against its own history."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import AdaptationType, ModelTopology, PerformanceMetrics
from tamiyo.graph import ModelGraphState

__all__ = ["Evidence", "LossHistory"]

RECENT_REPORTS = 32
ENOUGH_REPORTS = 5
NO_PROGRESS = 0.95
"""TheDeepChecker: less than 5 % decrease in a period."""


@dataclass
class LossHistory:
    """Training losses of one run as they were reported; the first one stands for chance level."""

    first: float = float("nan")
    best: float = float("inf")
    reports: int = 0
    recent: list[float] = field(default_factory=list)
    signed: bool = False
    """Whether a loss was below zero: quotients of such losses say nothing."""
    seen_step: int = -1

    def take(self, metrics: Sequence[PerformanceMetrics]) -> None:
        """Add the reports that are newer than those taken before."""
        for report in metrics:
            if report.step > self.seen_step:
                self.seen_step = report.step
                self._add(report.loss)

    @property
    def stalled(self) -> bool:
        """No progress over the recent reports, at more than half of the first loss."""
        if len(self.recent) < ENOUGH_REPORTS or self.signed:
            return False
        quarter = len(self.recent) // 4
        # NumPy's median of a handful of numbers takes thirty times as long.
        before, now = median(self.recent[:quarter]), median(self.recent[-quarter:])
        return now >= NO_PROGRESS * before and now > 0.5 * self.first

    @property
    def never_learned(self) -> bool:
        """Enough reports, and none of them noticeably below the first."""
        enough = self.reports >= ENOUGH_REPORTS and not self.signed
        return enough and self.best >= NO_PROGRESS * self.first

    def deviation(self) -> float:
        """Robust z-score of the latest log loss against all but the one before it.

        That one is left out so that a jump does not become its own reference while it is being
        confirmed. NaN with fewer than five losses to compare with.
        """
        logs = np.log(np.maximum(self.recent, np.finfo(float).tiny))
        before = logs[:-2]
        if len(before) < 5:
            return float("nan")
        center = np.median(before)
        # The floor keeps a loss that barely moves from making every ripple an outlier.
        spread = 1.4826 * np.median(np.abs(before - center)) + 0.1
        return float((logs[-1] - center) / spread)

    def _add(self, loss: float | None) -> None:
        if loss is None:
            return
        self.reports += 1
        self.signed = self.signed or loss < 0
        if np.isnan(self.first):
            self.first = loss
        self.best = min(self.best, loss)
        self.recent = [*self.recent, loss][-RECENT_REPORTS:]


@dataclass(frozen=True, eq=False)
class Evidence:
    """One state as the rules see it; layers whose last signal is not fresh read NaN."""

    state: ModelGraphState
    topology: ModelTopology
    history: LossHistory
    after_step: int
    """Only what was measured after this step counts: older readings precede the last cure."""

    @cached_property
    def fresh(self) -> npt.NDArray[np.bool_]:
        """[N]."""
        return self.state.seen & (self.state.layers["step"] > self.after_step)

    @property
    def layers_step(self) -> int:
        """Optimiser step of the newest fresh signal; -1 without one."""
        steps: list[int] = self.state.layers["step"][self.fresh].tolist()
        return max(steps, default=-1)

    @property
    def report(self) -> PerformanceMetrics | None:
        """The latest model-level report, where it is fresh."""
        metrics = self.state.metrics
        return metrics[-1] if metrics and metrics[-1].step > self.after_step else None

    @property
    def loss(self) -> float:
        """Latest training loss; NaN without a fresh finite one, or where losses are signed."""
        report = self.report
        if report is None or report.loss is None or self.history.signed:
            return float("nan")
        return report.loss

    @property
    def loss_level(self) -> float:
        """The run's own slow level of the loss; NaN where it is not known."""
        report = self.report
        return float("nan") if report is None or not report.loss_level else report.loss_level

    @property
    def suffers(self) -> bool:
        """Whether the loss stalls, or is far above its own level."""
        return self.history.stalled or self.loss > 2 * self.loss_level

    def last(self, measurement: str) -> npt.NDArray[np.floating]:
        """[N]: last reading of a measurement."""
        return np.where(self.fresh, self.state.layers[f"{measurement}_last"], np.nan)

    def trainable(self, measurement: str) -> npt.NDArray[np.floating]:
        """Last readings of the layers that own parameters, in order of use, measured ones only."""
        owners = self.last(measurement)[self._owners]
        measured: npt.NDArray[np.floating] = owners[~np.isnan(owners)]
        return measured

    @cached_property
    def hidden(self) -> npt.NDArray[np.bool_]:
        """[N]: layers that feed another one. Every layer, where no data flow was traced."""
        if not self.topology.edges:
            return np.ones(len(self.topology), bool)
        feeds = np.zeros(len(self.topology), bool)
        feeds[[edge.source for edge in self.topology.edges]] = True
        return feeds

    @cached_property
    def _owners(self) -> npt.NDArray[np.bool_]:
        return np.array([node.parameters > 0 for node in self.topology.nodes], dtype=bool)

    def most_upstream(self, layers: npt.NDArray[np.bool_]) -> int:
        """The chosen layer that is least deep; a sick layer starves everything after it."""
        depths = self.topology.depths
        chosen: list[int] = np.flatnonzero(layers).tolist()
        return min(chosen, key=lambda layer: (depths[layer], layer))

    def nearest(self, layer: int, action: AdaptationType, *, upstream: bool) -> int | None:
        """This layer or the closest one before (or after) it that can take an adaptation."""
        step = self.topology.predecessors if upstream else self.topology.successors
        frontier, visited = [layer], {layer}
        while frontier:
            able = [near for near in frontier if action in self.topology.nodes[near].actions]
            if able:
                return min(able)
            reached = sorted({found for near in frontier for found in step(near)} - visited)
            visited.update(reached)
            frontier = reached
        return None
