"""Episodes of a live run: what the policy sees, what it draws, what came of it.

A live episode begins when the collection attaches to the run, or when the one before it has ended;
it ends with the reward's horizon, with a `restore` that was carried out (what follows a restore is
another run), or with the run itself. All three cut it off, none terminates it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import torch

from tamiyo.collect import ProductionHealthCollector
from tamiyo.contracts import AdaptationDecision, AdaptationResult, AdaptationType, Outcome
from tamiyo.graph import ModelGraphBuilder, ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.observations import Observations
from tamiyo.learn.replay.episodes import OpenEpisode, Step, target_row
from tamiyo.learn.rewards import (
    COMPONENTS,
    LiveRewards,
    Metric,
    QualityScale,
    RewardConfig,
    Rewards,
)
from tamiyo.learn.segments import Segment
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import WHOLE_MODEL, Action
from tamiyo.policy.proposal import Proposal, to_decision

__all__ = ["Episode", "Execute", "LiveEpisodes", "LiveSettings"]

Execute = Callable[[AdaptationDecision], Awaitable[AdaptationResult | None]]
"""Has a decision carried out; returns its first result, or `None` where nothing came of it."""

SIGNALS = 500
ACCURACY = COMPONENTS.index("accuracy")
DONE = (Outcome.APPLIED, Outcome.KEPT)


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How a live run is judged and paced.

    Attributes:
        scale: How its evaluations become quality; by default the accuracy as it is.
        interval_steps: Optimiser steps between decisions.
        rewards: Weights, scales and the length of an episode.
        silence_seconds: A run that sends nothing for so long is over.
    """

    scale: QualityScale = field(default_factory=lambda: QualityScale(Metric.ACCURACY, chance=0.0))
    interval_steps: int = 100
    rewards: RewardConfig = field(default_factory=RewardConfig)
    silence_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode as the learner takes it."""

    segments: tuple[Segment, ...]
    reward: float
    """Its return; NaN where it cannot be known, and there is nothing to learn from then."""
    ended: str
    """`horizon`, `restore` or `run`."""


@dataclass(slots=True)
class _Decision:
    """A moment, what was drawn, and what is known so far of what followed."""

    state: ModelGraphState
    observation: Observations
    action: Action
    log_prob: float
    sampled: bool = False
    decision: AdaptationDecision | None = None
    reward: float = 0.0
    valid: bool = True
    evaluated: bool = False
    targets: dict[str, float] = field(default_factory=dict)


class LiveEpisodes:
    """Follows one run, decision by decision.

    Without `execute` nothing is done to the run: its decisions count as *do nothing* that nobody
    drew, which trains the value and the outlook, never the policy.

    Args:
        collector: Collecting already.
        builder: Makes the graphs.
        policy: Draws the actions.
        settings: Scale and pace.
        execute: Has decisions carried out.
        generator: Source of the draws.
    """

    def __init__(
        self,
        collector: ProductionHealthCollector,
        builder: ModelGraphBuilder,
        policy: EnhancedTamiyoPolicyGNN,
        settings: LiveSettings,
        execute: Execute | None,
        generator: torch.Generator,
    ) -> None:
        self._collector = collector
        self._builder = builder
        self._policy = policy
        self._settings = settings
        self._execute = execute
        self._generator = generator
        self._rewards: LiveRewards | None = None
        self._seen_metrics = -1
        self._seen_topology: object = None
        self._revision = -1
        self._open: list[_Decision] = []

    async def next(self, exploration: float, version: int) -> Episode | None:
        """The next episode, or `None` when the run ended before anything was decided.

        Args:
            exploration: ε of the mixture that actions are drawn from.
            version: Of the policy.
        """
        self._open = []
        while await self._news():
            state = await self._state()
            if state is None:
                continue
            closed = self._feed(state)
            if self._open:
                self._credit(closed)
            restored = bool(self._open) and _restored(self._open[-1])
            if closed and self._open and (restored or bool(closed[-1].done[0])):
                return self._finish(state, version, "restore" if restored else "horizon")
            if closed or not self._open:
                await self._decide(state, exploration)
        if len(self._open) < 2:
            return None
        # What followed the last decision was never seen.
        last = self._open.pop()
        return self._finish(last.state, version, "run")

    def take_result(self, result: AdaptationResult) -> None:
        """A later result of a decision, such as that it was kept or taken back."""
        if self._rewards is not None:
            self._rewards.observe(result)
        for one in self._open:
            if one.decision is not None and one.decision.decision_id == result.decision_id:
                one.targets |= _safety(result.outcome)

    async def _news(self) -> bool:
        """Wait for something new; false once the run is over."""
        if not self._collector.is_collecting:
            return False
        change = asyncio.create_task(self._collector.wait_for_change(self._revision))
        ended = asyncio.create_task(self._collector.wait())
        try:
            done, _ = await asyncio.wait(
                (change, ended),
                timeout=self._settings.silence_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in (change, ended):
                task.cancel()
        if ended in done:
            ended.result()  # raises what ended the collection, if that was an error
        if change not in done:
            return False
        self._revision = change.result()
        return True

    async def _state(self) -> ModelGraphState | None:
        """The run now; `None` until it has said what it is and how it does."""
        signals = await self._collector.get_recent_signals(SIGNALS)
        if signals.topology is None or not signals.metrics:
            return None
        return self._builder.build_model_graph(signals)

    def _feed(self, state: ModelGraphState) -> list[Rewards]:
        """Hand what is new to the rewards; the intervals that it closed."""
        if self._rewards is None:
            self._rewards = LiveRewards(
                str(state.run),
                self._settings.scale,
                interval_steps=self._settings.interval_steps,
                config=self._settings.rewards,
            )
        if state.topology is not None and state.topology is not self._seen_topology:
            self._seen_topology = state.topology
            self._rewards.observe(state.topology)
        closed = []
        for report in state.metrics:
            if report.step > self._seen_metrics:
                self._seen_metrics = report.step
                closed += self._rewards.observe(report)
        return closed

    def _credit(self, closed: list[Rewards]) -> None:
        for rewards in closed:
            self._open[-1].reward += float(rewards.reward[0])
            self._open[-1].valid &= bool(rewards.valid[0])
            self._open[-1].evaluated |= bool(rewards.measured[0, ACCURACY])

    async def _decide(self, state: ModelGraphState, exploration: float) -> None:
        """Draw an action on this moment and have it carried out."""
        assert self._rewards is not None  # noqa: S101 - fed before
        allowed = torch.from_numpy(self._rewards.allowed())
        data = state.graph_data.clone()
        data.action_mask = data.action_mask & allowed
        data.model_action_mask = data.model_action_mask & allowed
        drawn = _Decision(state, Observations.from_data(data), _nothing(), float("nan"))
        self._open.append(drawn)
        if self._execute is None:
            return
        with torch.no_grad():
            outputs = self._policy(data.to(self._policy.device))
            distribution = outputs["distribution"]
            drawn.action = distribution.sample(self._generator, exploration)
            drawn.log_prob = float(distribution.log_prob(drawn.action, exploration))
        drawn.sampled = True
        if not bool(drawn.action.adapt):
            return
        drawn.decision = _to_decision(drawn, outputs, self._policy)
        result = await self._execute(drawn.decision)
        if result is not None:
            self.take_result(result)
        if result is None or result.outcome not in (*DONE, Outcome.ROLLED_BACK):
            # Somebody else's choice: what was done is nothing, and nobody drew that.
            drawn.action, drawn.sampled, drawn.log_prob = _nothing(), False, float("nan")

    def _finish(self, last: ModelGraphState, version: int, ended: str) -> Episode:
        decided, self._open = self._open, []
        # Where quality was never looked at, a reward of zero means nothing.
        valid = all(one.valid for one in decided) and any(one.evaluated for one in decided)
        if not valid:
            return Episode((), float("nan"), ended)
        segments = _segments(decided, Observations.from_data(last.graph_data), version)
        return Episode(tuple(segments), sum(one.reward for one in decided), ended)


def _segments(decided: list[_Decision], last: Observations, version: int) -> list[Segment]:
    """The decisions of an episode in a row; the moment `last` followed them."""
    segments = []
    episode = OpenEpisode(version)
    for one in decided:
        if episode.steps and not episode.fits(one.observation, version):
            segments.append(episode.close(one.observation))
            episode = OpenEpisode(version)
        episode.add(
            Step(
                observation=one.observation,
                adapt=bool(one.action.adapt),
                target=int(one.action.target),
                type=int(one.action.type),
                log_prob=one.log_prob,
                reward=one.reward,
                sampled=one.sampled,
                targets=target_row(one.targets),
                td_error=float("nan"),
            ),
            None,
        )
    segments.append(episode.close(last, truncated=True))
    return segments


def _nothing() -> Action:
    return Action(torch.tensor([False]), torch.tensor([WHOLE_MODEL]), torch.tensor([0]))


def _restored(one: _Decision) -> bool:
    return (
        one.decision is not None
        and one.decision.adaptation is AdaptationType.RESTORE
        and bool(one.action.adapt)
    )


def _safety(outcome: Outcome) -> Mapping[str, float]:
    """What an outcome says about having been safe; a provisional one says nothing."""
    if outcome is Outcome.KEPT:
        return {"safety": 1.0, "risk": 0.0}
    if outcome in (Outcome.ROLLED_BACK, Outcome.FAILED):
        return {"safety": 0.0, "risk": 1.0}
    return {}


def _to_decision(
    drawn: _Decision, outputs: Mapping[str, torch.Tensor], policy: EnhancedTamiyoPolicyGNN
) -> AdaptationDecision:
    target = int(drawn.action.target)
    layers = () if target == WHOLE_MODEL else (int(drawn.state.layer_ids[target]),)
    proposal = Proposal(
        adaptation=ACTIONS[int(drawn.action.type)],
        target=layers,
        reason="drawn by the policy that is being trained",
        confidence=float(outputs["adaptation_prob"]),
        safety=float(outputs["safety_score"]),
        risk=float(outputs["risk_assessment"]),
        log_prob=drawn.log_prob,
        value=float(outputs["value_estimate"]),
    )
    return to_decision(
        proposal, drawn.state, policy.name, policy.version, policy.config.decision_ttl_steps
    )
