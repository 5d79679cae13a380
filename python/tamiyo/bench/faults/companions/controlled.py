"""Policies that decide on what Tamiyo measures, and act through it: the rules, the learned one."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from tamiyo.bench.faults.companion import POLICIES, Companion, Policy, Subject
from tamiyo.bench.faults.rows import FaultAct
from tamiyo.control import Control, attach
from tamiyo.policy import (
    DecisionPolicy,
    EnhancedTamiyoPolicyGNN,
    FallbackPolicy,
    RulesPolicy,
    learned_policy,
)

__all__ = ["Controlled", "add_networks"]

PROBE_EVERY = 10
"""Steps between readings. With a budget of time instead, runs would depend on the clock."""


class Controlled(Companion):
    """Tamiyo beside the run, in autonomous mode, with checks, watches and rollbacks as users have.

    Readings come every ten steps and there is time for every snapshot, so that a run follows from
    its seed.

    Args:
        policy: Who decides.
        probe_every: Steps between readings.
    """

    def __init__(self, policy: DecisionPolicy, probe_every: int = PROBE_EVERY) -> None:
        self._policy = policy
        self._probe_every = probe_every
        self._control: Control | None = None

    @property
    def version(self) -> str:  # type: ignore[override] # of the policy, which is known later
        """That of the policy."""
        return self._policy.version

    def attach(self, subject: Subject) -> None:
        """See `Companion.attach`."""
        self._control = attach(
            subject.model,
            subject.optimizer,
            mode="autonomous",
            policy=self._policy,
            pace="lockstep",
            run=subject.name,
            total_steps=subject.steps,
            probe_every=self._probe_every,
            snapshot_budget=1.0,
        )

    def after_step(self, loss: Tensor) -> None:
        """See `Companion.after_step`."""
        if self._control is not None:
            self._control.step(loss=loss)

    def evaluated(self, loss: float, accuracy: float) -> None:
        """See `Companion.evaluated`."""
        if self._control is not None:
            self._control.report(val_loss=loss, val_accuracy=accuracy)

    def close(self) -> None:
        """See `Companion.close`."""
        if self._control is not None:
            self._control.remove()

    def acts(self) -> Sequence[FaultAct]:
        """What was decided, with what became of it."""
        if self._control is None:
            return ()
        topology = self._control.topology
        return [
            FaultAct.of(decision, result, topology, verified=result.verified)
            for decision, result in self._control.history
        ]


def add_networks(folders: Mapping[str, Path]) -> None:
    """Register networks from checkpoints, each with the rules behind it as the shipped one has.

    Args:
        folders: Of the checkpoints, by the names of the policies.

    Raises:
        ValueError: a name is taken.
        CheckpointError: a checkpoint that cannot be used. A policy that silently was the rules
            alone would pass for the network.
    """
    for name, folder in folders.items():
        make = partial(_controlled_network, folder)
        make()
        POLICIES.add(Policy(name, make))


def _controlled_network(folder: Path) -> Controlled:
    return Controlled(FallbackPolicy(EnhancedTamiyoPolicyGNN.from_pretrained(folder)))


POLICIES.add(Policy("rules", lambda: Controlled(RulesPolicy())))
POLICIES.add(Policy("learned", lambda: Controlled(learned_policy())))
