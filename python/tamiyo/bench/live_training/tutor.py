"""A tutor beside a live run: at every state it knows what should be done, whoever decides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tamiyo.bench.faults.companion import Oracle
from tamiyo.bench.faults.companions.controlled import Controlled
from tamiyo.bench.faults.companions.oracle import ToldPolicy
from tamiyo.bench.faults.fault import Told
from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.observations import Observations
from tamiyo.policy import DecisionPolicy, Verdict
from tamiyo.policy.actions import WHOLE_MODEL
from tamiyo.policy.inputs import GraphInputs
from tamiyo.policy.legality import narrowed
from tamiyo.policy.proposal import Proposal

__all__ = ["Moment", "Tutored", "TutoredPolicy"]


@dataclass(frozen=True, eq=False, slots=True)
class Moment:
    """A state that somebody could decide on, and what should be done about it."""

    observation: Observations
    """Of this state alone."""
    type: int | None
    """Index into `ACTIONS`; `None` where nothing should be done."""
    rows: tuple[int, ...] = ()
    """Rows of the graph's nodes, any of which is right; `WHOLE_MODEL` alone for the run."""


class TutoredPolicy:
    """Keeps what the expert says to every state; the expert decides, or a pupil.

    States in the pause after a decision are left out: nothing can be decided on them.

    Args:
        told: What is wrong, if anything.
        offered: [types], bool: what the network to be taught has learned to choose from.
        pupil: Who decides; without one the expert does.
        patience: States in which the expert wants something and waits, before it decides.
    """

    name, version = "tutored", "1"

    def __init__(
        self, told: Told, offered: Tensor, pupil: DecisionPolicy | None, patience: int = 0
    ) -> None:
        self.moments: list[Moment] = []
        self._expert = ToldPolicy(told)
        self._offered, self._pupil, self._patience = offered, pupil, patience
        if pupil is not None:
            # What the pupil does counts for the expert as if it had done it.
            self._expert.budget = pupil.budget
        self.budget = self._expert.budget

    def decide(self, state: ModelGraphState) -> Verdict:
        """See `DecisionPolicy.decide`."""
        if state.run is None or state.topology is None or not state.seen.any():
            return Verdict(None, "the run is not known yet")
        pause = self._expert.config.cooldown_steps
        if not self.budget.steps_since(str(state.run), state.step) < pause:
            wanted = self._expert.propose(state)
            self.moments += _moments(state, wanted, self._offered)
            if self._pupil is not None:
                return self._ask(self._pupil, state, wanted)
            if isinstance(wanted, Proposal) and self._patience > 0:
                self._patience -= 1
                return Verdict(None, "the expert waits")
        return (self._pupil or self._expert).decide(state)

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision

    def _ask(
        self, pupil: DecisionPolicy, state: ModelGraphState, wanted: Proposal | str
    ) -> Verdict:
        verdict = pupil.decide(state)
        if isinstance(wanted, Proposal) and not _is(verdict.decision, wanted):
            self._expert.withdraw()
        return verdict


class Tutored(Controlled, Oracle):
    """Tamiyo beside a run, as users have it, with a tutor.

    Args:
        offered: See `TutoredPolicy`.
        pupil: Likewise.
        patience: Likewise.
        harmless: Whether the fault does no harm that can be undone: there is nothing to do then.
    """

    def __init__(
        self,
        offered: Tensor,
        pupil: DecisionPolicy | None,
        patience: int = 0,
        *,
        harmless: bool = False,
    ) -> None:
        self._tutored = TutoredPolicy(Told(), offered, pupil, patience)
        self._arguments = offered, pupil, patience
        self._harmless = harmless
        super().__init__(self._tutored)

    @property
    def moments(self) -> Sequence[Moment]:
        """What was kept of the run."""
        return self._tutored.moments

    def tell(self, told: Told) -> None:
        """See `Oracle.tell`."""
        if not self._harmless:
            self._policy = self._tutored = TutoredPolicy(told, *self._arguments)


def _is(decision: AdaptationDecision | None, wanted: Proposal) -> bool:
    """Whether it is what the expert wants, or a part of it."""
    if decision is None or decision.adaptation is not wanted.adaptation:
        return False
    part = set(decision.target) <= set(wanted.target)
    return part and bool(decision.target) == bool(wanted.target)


def _moments(state: ModelGraphState, wanted: Proposal | str, offered: Tensor) -> Sequence[Moment]:
    """The state with the answer, unless a network may not choose what is wanted."""
    data = state.graph_data.clone()
    inputs = narrowed(GraphInputs.from_data(data), state, offered)
    data.action_mask, data.model_action_mask = inputs.legal.split((inputs.nodes, 1))
    observation = Observations.from_data(data)
    if isinstance(wanted, str):
        return [Moment(observation, None)]
    column = ACTIONS.index(wanted.adaptation)
    if not wanted.target:
        able = bool(data.model_action_mask[0, column])
        return [Moment(observation, column, (WHOLE_MODEL,))] if able else []
    meant = torch.from_numpy(np.isin(state.layer_ids, wanted.target))
    rows = (meant & data.action_mask[:, column]).nonzero()[:, 0].tolist()
    return [Moment(observation, column, tuple(rows))] if rows else []
