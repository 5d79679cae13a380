"""ZClip: clips gradients whose norm stands out from its own history.

Kumar et al., *ZClip: Adaptive Spike Mitigation for LLM Pre-Training*, arXiv:2504.02507, with the
paper's settings: moving averages of .97, a warm-up of 25 steps, a threshold of 2.5 deviations, and
reciprocal clipping.
"""

from collections.abc import Sequence
from math import isfinite, sqrt
from statistics import fmean, pvariance

import torch

from tamiyo.bench.faults.companion import POLICIES, Companion, Policy, Subject
from tamiyo.bench.faults.companions.interventions import intervention
from tamiyo.bench.faults.rows import FaultAct
from tamiyo.contracts import AdaptationType

__all__ = ["ZClip", "ZScore"]

WARM_UP = 25
DECAY = 0.97
THRESHOLD = 2.5
TINY = 1e-12


class ZScore:
    """What a gradient's norm may be, by the norms before it."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._mean = self._variance = 0.0

    def admit(self, norm: float) -> float:
        """The norm that is to be used instead, which is then part of the history.

        Norms that are not finite pass, because no factor mends them, and are forgotten.
        """
        if not isfinite(norm):
            return norm
        if len(self._first) < WARM_UP:
            self._first.append(norm)
            self._mean, self._variance = fmean(self._first), pvariance(self._first)
            return norm
        deviation = max(sqrt(self._variance), TINY)
        score = (norm - self._mean) / deviation
        if score > THRESHOLD:
            norm = self._mean + THRESHOLD**2 / score * deviation
        self._mean = DECAY * self._mean + (1 - DECAY) * norm
        self._variance = DECAY * self._variance + (1 - DECAY) * (norm - self._mean) ** 2
        return norm


class ZClip(Companion):
    """Clips the norm of all gradients together; each clipped step is an act."""

    def __init__(self) -> None:
        self._acts: list[FaultAct] = []
        self._score = ZScore()

    def attach(self, subject: Subject) -> None:
        """See `Companion.attach`."""
        self._subject = subject

    def before_step(self) -> None:
        """See `Companion.before_step`."""
        parameters = self._subject.model.parameters()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        admitted = self._score.admit(norm)
        if admitted < norm:
            torch._foreach_mul_(gradients, admitted / norm)
            kind, reason = AdaptationType.CLIP_GRADIENTS, f"a gradient norm of {norm:.3g}"
            self._acts.append(
                intervention(self._subject.step, kind, "zclip", reason, norm=admitted)
            )

    def acts(self) -> Sequence[FaultAct]:
        """Each step whose gradients were clipped."""
        return self._acts


POLICIES.add(Policy("zclip", ZClip))
