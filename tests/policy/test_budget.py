import math

import pytest

from tamiyo.contracts import AdaptationDecision
from tamiyo.policy.budget import DecisionBudget


@pytest.fixture
def budget():
    return DecisionBudget(max_per_epoch=2, cooldown_steps=10, window_steps=100)


def decision(step, run="run"):
    return AdaptationDecision(
        decision_id=f"{run}-{step}",
        run=run,
        adaptation="restore",
        issued_at_step=step,
        expires_at_step=step + 5,
    )


def test_nothing_is_spent_at_first(budget):
    assert budget.spent("run", 0, 0) == 0
    assert math.isnan(budget.steps_since("run", 0))


def test_decisions_count_within_their_epoch_and_window_and_run(budget):
    budget.charge(decision(10), epoch=1)
    assert budget.spent("run", 20, 1) == 1
    assert budget.spent("run", 20, 2) == 0
    assert budget.spent("run", 110, 1) == 0
    assert budget.spent("other", 20, 1) == 0
    assert budget.steps_since("run", 25) == 15


def test_the_same_decision_is_charged_once_and_can_be_released(budget):
    budget.charge(decision(10), epoch=1)
    budget.charge(decision(10), epoch=1)
    assert budget.spent("run", 11, 1) == 1
    assert budget.spent("run", 11, 1, apart_from="run-10") == 0
    budget.release(decision(10))
    assert budget.spent("run", 11, 1) == 0
    budget.release(decision(99, run="never seen"))


def test_going_back_earns_no_new_budget(budget):
    budget.charge(decision(50), epoch=1)
    assert budget.spent("run", 45, 1) == 1
    assert budget.steps_since("run", 45) == 5
