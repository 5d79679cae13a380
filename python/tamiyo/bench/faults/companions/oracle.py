"""The oracle: is told the fault, and does what mends it. It says what can be mended in place."""

from collections.abc import Sequence

from tamiyo.bench.faults.companion import POLICIES, Oracle, Policy
from tamiyo.bench.faults.companions.controlled import Controlled
from tamiyo.bench.faults.fault import Cure, Place, Told
from tamiyo.bench.proposing import ProposingPolicy
from tamiyo.bench.transfer.deciders import WAIT
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.proposal import Proposal

__all__ = ["ToldPolicy"]

LEARNS = 0.7
"""Share of the loss at chance below which a network has learned something."""
PROBE_EVERY = 5
"""Steps between readings: all that it has to see is that a fault was measured."""


class ToldPolicy(ProposingPolicy):
    """Applies the first legal cure: soon after the fault struck, or at once if it was there.

    What belongs to that cure besides follows where the run does not learn then, with the pause
    between decisions that every policy has to keep. Nothing is tried twice.

    Args:
        told: What is wrong, and what mends it.
    """

    def __init__(self, told: Told) -> None:
        super().__init__("oracle")
        self._told = told
        # There is nothing to tell a fault from that was there from the beginning.
        self._from = told.onset + WAIT if told.onset else 0
        self._courses = [(cure, *cure.then) for cure in told.cures]
        """Ways to go on, best first; of one that was begun, what is left."""
        self._issued: tuple[int, list[tuple[Cure, ...]]] | None = None
        """Step of the last decision, and the ways there were before it."""

    def propose(self, state: ModelGraphState) -> Proposal | str:
        """A step of the cure, once the fault was measured."""
        if not (state.layers["step"][state.seen] > self._from).any():
            return "the fault was not measured yet"
        since = self.budget.steps_since(str(state.run), state.step)
        if self._issued is not None and not since <= state.step - self._issued[0]:
            # It was not published or not applied, and is off the budget.
            self.withdraw()
        if since < self.config.cooldown_steps:
            return "the last step of the cure is under watch"
        if self._issued is not None and self._enough(state):
            return "the run learns again"
        for first, *rest in self._courses:
            proposal = self._proposal(first, state)
            if proposal is not None:
                self._issued = state.step, self._courses
                self._courses = [tuple(rest)] if rest else []
                return proposal
        return "there is nothing to do that is legal"

    def withdraw(self) -> None:
        """What was proposed last was not done."""
        if self._issued is not None:
            self._courses, self._issued = self._issued[1], None

    def _proposal(self, cure: Cure, state: ModelGraphState) -> Proposal | None:
        """The cure as something to be done now, if that is legal."""
        graph, column = state.graph_data, ACTIONS.index(cure.adaptation)
        target: tuple[int, ...] = ()
        if cure.place is Place.RUN:
            legal = bool(graph.model_action_mask[0, column])
        else:
            names = self._told.hidden if cure.place is Place.HIDDEN else self._told.culprits
            target = _able(names, state, column)
            legal = bool(target)
        return Proposal(cure.adaptation, target, "told", cure.parameters) if legal else None

    def _enough(self, state: ModelGraphState) -> bool:
        """Whether the run learns again, so that what would follow is not needed."""
        losses = [report.loss for report in state.metrics if report.loss is not None]
        return bool(losses) and losses[-1] < LEARNS * self._told.chance


class ToldCompanion(Controlled, Oracle):
    """Tamiyo with the oracle in the place of a policy."""

    def __init__(self) -> None:
        super().__init__(ToldPolicy(Told()), PROBE_EVERY)

    def tell(self, told: Told) -> None:
        """See `Oracle.tell`."""
        self._policy = ToldPolicy(told)


def _able(names: Sequence[str], state: ModelGraphState, column: int) -> tuple[int, ...]:
    """Those of the named layers that can take the adaptation."""
    if state.topology is None:
        return ()
    known = state.topology.by_name
    layers = [known[name].layer_id for name in names if name in known]
    return tuple(layer for layer in layers if bool(state.graph_data.action_mask[layer, column]))


POLICIES.add(Policy("oracle", ToldCompanion))
