"""What the policy is shown of its own past decisions."""

import math

import pytest

from tamiyo.contracts import AdaptationDecision, AdaptationResult, Outcome, Topic
from tamiyo.graph.schema import GLOBAL_COLUMNS
from tamiyo.policy import Verdict
from tamiyo.policy.budget import DecisionBudget
from tamiyo.service import ServiceConfig, TamiyoService, read_journal

USED, SINCE = (
    [column.name for column in GLOBAL_COLUMNS].index(name)
    for name in ("budget_used", "since_adaptation")
)


class Watcher:
    """Decides at given steps, and keeps what it is shown."""

    name, version = "watcher", "1"

    def __init__(self, *steps):
        self.budget = DecisionBudget(max_per_epoch=4, cooldown_steps=0, window_steps=1000)
        self.steps, self.states = steps, []

    def decide(self, state):
        self.states.append(state)
        if state.step not in self.steps:
            return Verdict(None, "not asked")
        decision = AdaptationDecision(
            decision_id=f"at {state.step}",
            run="r",
            adaptation="scale_learning_rate",
            parameters={"factor": 0.1},
            issued_at_step=state.step,
            expires_at_step=state.step + 5,
        )
        self.budget.charge(decision, state.epoch)
        return Verdict(decision, "asked")

    def make_decision(self, state):
        return self.decide(state).decision

    def shown(self):
        """Budget used and steps since the last adaptation, as last shown; `None` if missing."""
        data = self.states[-1].graph_data
        return tuple(
            float(data.global_features[0, column]) if data.global_measured[0, column] else None
            for column in (USED, SINCE)
        )


def after(steps):
    return pytest.approx(math.log10(1 + steps) / 5)


async def test_a_graph_shows_the_budget_and_the_last_decision(bus, sample):
    policy = Watcher(20, 50)
    service = TamiyoService(bus, policy, run="r")
    shown = {}
    for step in (10, 20, 30, 50, 60):
        sample(step)
        await service.advance()
        shown[step] = policy.shown()
        if step in policy.steps:
            answer(bus, step, Outcome.KEPT)
    await service.shut_down()
    assert shown[10] == shown[20] == (0.0, None)
    assert shown[30] == (0.25, after(10))
    assert shown[50] == (0.25, after(30))
    assert shown[60] == (0.5, after(10))


async def test_what_the_host_refused_was_no_adaptation(bus, sample):
    policy = Watcher(20)
    service = TamiyoService(bus, policy, run="r")
    sample(20)
    await service.advance()
    answer(bus, 20, Outcome.REFUSED)
    sample(30)
    await service.advance()
    await service.shut_down()
    assert policy.shown() == (0.0, None)


async def test_the_journal_has_what_the_policy_was_shown(bus, sample, tmp_path):
    config = ServiceConfig(journal=tmp_path / "journal.jsonl")
    service = TamiyoService(bus, Watcher(20, 40), run="r", config=config)
    for step in (20, 40):
        sample(step)
        await service.advance()
        answer(bus, step, Outcome.KEPT)
    await service.shut_down()
    entries = [entry for entry in read_journal(config.journal) if entry["event"] == "proposed"]
    found = [(entry["budget_used"], entry["steps_since_adaptation"]) for entry in entries]
    assert found == [(0.0, None), (0.25, 20.0)]


def answer(bus, step, outcome):
    result = AdaptationResult(decision_id=f"at {step}", run="r", step=step, outcome=outcome)
    bus.publish_nowait(Topic.RESULTS, result.to_bytes())
