"""What careful users do by hand: lower the rate on a plateau, and clip the gradient's norm."""

from collections.abc import Sequence

from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tamiyo.bench.faults.companion import POLICIES, Companion, Policy, Subject
from tamiyo.bench.faults.companions.interventions import intervention
from tamiyo.bench.faults.rows import FaultAct
from tamiyo.contracts import AdaptationType

__all__ = ["Plateau"]

MOST_NORM = 1.0
"""Of all gradients together (Pascanu et al., ICML 2013, arXiv:1211.5063, rescale the same way)."""
PATIENCE = 6
"""Evaluations without progress, of the forty in a run."""


class Plateau(Companion):
    """`torch.optim.lr_scheduler.ReduceLROnPlateau` on the held-out loss, and clipping throughout.

    Clipping is part of how it trains, so that only what it does to the learning rate is an act.
    """

    def __init__(self) -> None:
        self._acts: list[FaultAct] = []

    def attach(self, subject: Subject) -> None:
        """See `Companion.attach`."""
        self._subject = subject
        self._scheduler = ReduceLROnPlateau(subject.optimizer, patience=PATIENCE)

    def before_step(self) -> None:
        """See `Companion.before_step`."""
        nn.utils.clip_grad_norm_(self._subject.model.parameters(), MOST_NORM)

    def evaluated(self, loss: float, accuracy: float) -> None:  # noqa: ARG002 - the loss decides
        """See `Companion.evaluated`."""
        before = self._rate()
        self._scheduler.step(loss)
        if self._rate() < before:
            reason = f"no better held-out loss in {PATIENCE} evaluations"
            kind = AdaptationType.SCALE_LEARNING_RATE
            factor = self._rate() / before
            self._acts.append(
                intervention(self._subject.step, kind, "plateau", reason, factor=factor)
            )

    def acts(self) -> Sequence[FaultAct]:
        """Each time that the rate was lowered."""
        return self._acts

    def _rate(self) -> float:
        return float(self._subject.optimizer.param_groups[0]["lr"])


POLICIES.add(Policy("plateau", Plateau))
