"""How far the weights of a run move, measured over a few steps at a time."""

import math
from collections import deque
from statistics import median

import torch
from torch import nn

from tamiyo.host.readback import Readback
from tamiyo.host.training import TrainingRun, unwrap

__all__ = ["WeightDrift"]

SAMPLED = 1024
"""Scalars per matrix from which its change is estimated."""
PAUSE = 1 / 8
"""Share of a run's age for which a window is taken to stand, while nothing is being compared."""
LONGEST_PAUSE = 512
"""Steps for which it is at most."""


class WeightDrift:
    """How much further each matrix moves in a window of steps than it did before some change.

    The loss says how good a run is, the drift how much it still changes. In a healthy run it goes
    from one window to the next without a break; a network that no longer learns, or that is shaken
    by its own steps, shows here long before it does in a noisy loss.

    A strided sample of each matrix is compared once per window, in one transfer. A matrix that was
    exchanged has nothing to be compared with and does not count. While there is nothing to compare
    with, windows are rare: drift changes over times of the order of the run's age.

    The running statistics of normalisations scatter too much for such comparisons, but if they no
    longer move at all they were cut off.

    Args:
        run: The run.
        window: Steps in a window.
        kept: Windows that are remembered.
    """

    def __init__(self, run: TrainingRun, *, window: int, kept: int = 32) -> None:
        self._run = run
        self._window = window
        self._last: dict[torch.Tensor, torch.Tensor] = {}
        """The matrices at the last look, and their samples."""
        self._arriving: deque[tuple[list[torch.Tensor], Readback, float]] = deque()
        self._moves: dict[torch.Tensor, float] = {}
        """‖Δw‖ / ‖w‖ of each matrix in the latest window."""
        self._reference: dict[torch.Tensor, float] = {}
        """The same in the last window before the restart, at the restart's learning rate."""
        self.due = 0
        """The step after which `observe` has something to do."""
        self._rate = self._seen = self._measured_at = self._learning_rate()
        """Learning rates at the restart, at the latest step, and in the latest window."""
        self.rates: deque[float] = deque(maxlen=kept)
        """Median over the matrices of the move in each window since the last `restart`, over that
        in the window before it; NaN where there is nothing to compare."""
        self.unscheduled: deque[float] = deque(maxlen=kept)
        """The same at the learning rate of the restart: what a schedule has done since is no
        effect of what was restarted for."""
        self.stillest: deque[float] = deque(maxlen=kept)
        """That of the matrix that moves least."""
        self.shares: deque[float] = deque(maxlen=kept)
        """Learning rate at the end of each window over that of the restart."""
        self._rose = -math.inf
        """The step after which a learning rate was last seen higher than before."""
        self.steady = True
        """Whether the learning rate was not on the rise before the last `restart`."""

    def observe(self, step: int) -> None:
        """Go on after a step."""
        while self._arriving and self._arriving[0][1].ready:
            matrices, readback, share = self._arriving.popleft()
            self._moves = dict(zip(matrices, readback.values().tolist(), strict=True))
            if self._reference:
                self._compare(share)
        # What a restart is made for may change it.
        seen, self._seen = self._seen, self._learning_rate()
        if self._seen > seen:
            self._rose = step
        if step >= self.due:
            self._look(step)

    def restart(self, step: int, *, compare: bool) -> None:
        """Begin anew after a change that training did not make.

        Args:
            step: Optimiser steps done.
            compare: Whether what comes is to be compared with the last window before.
        """
        self._rate = self._learning_rate()
        self.steady = step - self._rose > 2 * self._window
        scheduled = _ratio(self._seen, self._measured_at)
        scheduled = scheduled if 0 < scheduled < math.inf else 1.0
        self._reference = {m: r * scheduled for m, r in self._moves.items()} if compare else {}
        self._moves = {}
        self._clear()
        self._arriving.clear()
        self._last = {}
        self._look(step)

    def forget(self) -> None:
        """Compare no more, until the next restart."""
        self._reference = {}
        self._clear()

    def _clear(self) -> None:
        for rates in (self.rates, self.unscheduled, self.stillest, self.shares):
            rates.clear()

    def _compare(self, share: float) -> None:
        """Hold the latest window against the reference.

        Args:
            share: The learning rate over that of the restart.
        """
        moved = {
            m: self._moves[m] / r for m, r in self._reference.items() if m in self._moves and r
        }
        rates = [rate for m, rate in moved.items() if m.dim() > 1 and not math.isnan(rate)]
        stopped = any(rate == 0 for m, rate in moved.items() if m.dim() == 1)
        rate = median(rates) if rates else math.nan
        share = share if 0 < share < math.inf else math.nan
        self.shares.append(share)
        self.rates.append(rate)
        self.unscheduled.append(rate / share)
        self.stillest.append(0.0 if stopped else min(rates, default=math.nan) / share)

    def _look(self, step: int) -> None:
        model = unwrap(self._run.model)
        with torch.no_grad():
            now = {m: _sampled(m) for m in (*_matrices(model), *_running_statistics(model))}
            known = [matrix for matrix in now if matrix in self._last]
            if known:
                before = [self._last[matrix] for matrix in known]
                changes = torch._foreach_sub([now[matrix] for matrix in known], before)
                moves = torch.stack(torch._foreach_norm(changes))
                moves /= torch.stack(torch._foreach_norm(before))
                scheduled = _ratio(self._learning_rate(), self._rate)
                self._arriving.append((known, Readback(moves), scheduled))
                self._measured_at = self._learning_rate()
        pause = 0 if self._reference else min(int(PAUSE * step), LONGEST_PAUSE)
        if known and pause > self._window:
            self._last, self.due = {}, step + pause
        else:
            self._last, self.due = now, step + self._window

    def _learning_rate(self) -> float:
        rates = [group.get("lr") for group in self._run.optimizer.param_groups]
        return max((abs(float(rate)) for rate in rates if rate is not None), default=0.0)


def _ratio(now: float, then: float) -> float:
    if now == then:
        return 1.0
    return now / then if then else math.inf


def _matrices(model: nn.Module) -> list[torch.Tensor]:
    """Matrices and kernels that every step moves, as it does not the rows of an embedding."""
    rows = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for p in module.parameters(recurse=False)
    }
    # A norm of a parameter that is sharded over processes would wait for all of them.
    return [
        p
        for p in model.parameters()
        if p.dim() > 1
        and p.is_floating_point()
        and id(p) not in rows
        and not hasattr(p, "device_mesh")
    ]


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    return [m.running_mean for m in norms if m.running_mean is not None]


def _sampled(parameter: torch.Tensor) -> torch.Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)].float().clone()
