"""One decision cycle: what the run shows, what the policy says, what is published."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tamiyo.collect import ProductionHealthCollector
from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationResult,
    AdaptationType,
    ModelTopology,
    Outcome,
    SignalBatch,
    Topic,
    WireError,
)
from tamiyo.graph import ModelGraphBuilder, ModelGraphState
from tamiyo.graph.builder import newest_moment
from tamiyo.oona import BusFullError, OonaClient
from tamiyo.policy import DecisionPolicy, Verdict
from tamiyo.service.journal import DecisionJournal

__all__ = ["CycleStats", "DecisionCycle"]

log = logging.getLogger(__name__)

SIGNALS_PER_CYCLE = 500
WATCH_STEPS = 1000
"""Steps after its expiry in which the final result of an applied decision may still come."""


@dataclass
class CycleStats:
    """Counts since the cycle was made; seconds are wall time of the last and the longest cycle."""

    cycles: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    """Cycles by outcome: `decided`, `held` or `blocked`."""
    deciders: Counter[str] = field(default_factory=Counter)
    """Published decisions by the policy that made them."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Results of decisions by outcome."""
    refused_results: int = 0
    last_seconds: float = 0.0
    longest_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }


class DecisionCycle:
    """Asks a policy about a run and publishes what it decides, journal first.

    While a decision's result is awaited only `restore` may be decided on top of it: two changes
    watched at once could not be told apart.

    Args:
        client: The bus that decisions go out on and results come in on.
        collector: Where signals, topology and metrics come from.
        builder: Makes the graph that the policy reads.
        policy: Who decides.
        journal: Where everything that decided something is written down, if anywhere.
        term: This controller's term, which decisions carry.
    """

    def __init__(
        self,
        client: OonaClient,
        collector: ProductionHealthCollector,
        builder: ModelGraphBuilder,
        policy: DecisionPolicy,
        journal: DecisionJournal | None,
        term: int,
    ) -> None:
        self.stats = CycleStats()
        self._client = client
        self._collector = collector
        self._builder = builder
        self._policy = policy
        self._journal = journal
        self._term = term
        self._open: dict[str, AdaptationDecision] = {}
        self._journaled_topology: ModelTopology | None = None

    async def think(self) -> Verdict | None:
        """Decide once on what the collector holds; `None` while it holds nothing to decide on."""
        started = time.perf_counter()
        batch = await self._collector.get_recent_signals(SIGNALS_PER_CYCLE)
        if batch.topology is None or (not len(batch) and not batch.metrics):
            return None
        state = self._build(batch, batch.topology.run)
        verdict = self._policy.decide(state)
        self._act_on(verdict, state)
        seconds = time.perf_counter() - started
        self.stats.cycles += 1
        self.stats.last_seconds = seconds
        self.stats.longest_seconds = max(self.stats.longest_seconds, seconds)
        return verdict

    def take_result(self, payload: bytes) -> None:
        """Note what became of a decision; a malformed result is counted and dropped."""
        try:
            result = AdaptationResult.from_bytes(payload)
        except WireError as error:
            self.stats.refused_results += 1
            log.warning("refused a result: %s", error)
            return
        self.stats.outcomes[result.outcome] += 1
        self._write("result", **result.model_dump(mode="json"))
        if result.outcome is Outcome.APPLIED:
            return
        decision = self._open.pop(result.decision_id, None)
        if decision is not None and result.outcome in (Outcome.REFUSED, Outcome.EXPIRED):
            self._policy.budget.release(decision)

    def _build(self, batch: SignalBatch, run: str) -> ModelGraphState:
        """The graph of a run, with what of the policy's budget is left to it."""
        step, epoch = newest_moment(batch)
        budget = self._policy.budget
        return self._builder.build_model_graph(
            batch,
            budget_used=budget.spent(run, step, epoch) / budget.max_per_epoch,
            steps_since_adaptation=budget.steps_since(run, step),
        )

    def _act_on(self, verdict: Verdict, state: ModelGraphState) -> None:
        decision = verdict.decision
        if decision is None or decision.decision_id in self._open:
            self.stats.verdicts["held"] += 1
            return
        self._forget_unanswered(decision.issued_at_step)
        if self._open and decision.adaptation is not AdaptationType.RESTORE:
            self.stats.verdicts["blocked"] += 1
            self._policy.budget.release(decision)
            self._record("blocked", decision, verdict, state)
            return
        decision = decision.model_copy(update={"term": self._term})
        self.stats.verdicts["decided"] += 1
        self._record("proposed", decision, verdict, state)
        try:
            self._client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
        except BusFullError:
            # A host that takes no decisions must not stop the thinking; this one is journaled.
            self._policy.budget.release(decision)
            self._write("unpublished", decision_id=decision.decision_id)
            log.warning("no room on the bus for decision %s", decision.decision_id)
            return
        self.stats.deciders[decision.policy] += 1
        self._open[decision.decision_id] = decision

    def _forget_unanswered(self, step: int) -> None:
        """Stop waiting for decisions that a host, were there one, would have answered by now."""
        for decision in list(self._open.values()):
            lifetime = decision.expires_at_step - decision.issued_at_step
            if step > decision.expires_at_step + lifetime + WATCH_STEPS:
                del self._open[decision.decision_id]

    def _record(
        self, event: str, decision: AdaptationDecision, verdict: Verdict, state: ModelGraphState
    ) -> None:
        batch = state.health_signals
        if batch.topology is not None and batch.topology is not self._journaled_topology:
            self._journaled_topology = batch.topology
            self._write("topology", **batch.topology.model_dump(mode="json"))
        self._write(
            event,
            decision=decision.model_dump(mode="json"),
            checks=verdict.checks,
            outputs=verdict.outputs,
            passed_over=verdict.passed_over,
            layers=dict(batch.layers or {}),
            budget_used=state.global_metrics["budget_used"],
            steps_since_adaptation=state.global_metrics["steps_since_adaptation"],
            metrics=[metrics.model_dump(mode="json") for metrics in batch.metrics],
        )

    def _write(self, event: str, **fields: object) -> None:
        if self._journal is not None:
            self._journal.append(event, **fields)
