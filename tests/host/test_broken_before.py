"""A trial is held against the run as it was, and no rollback leads into a broken state."""

import math
from itertools import takewhile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, RunSnapshot, TrainingRun
from tamiyo.host.governor import Governor
from tamiyo.host.sample import Sample
from tamiyo.host.trial import Validation
from tamiyo.host.watch import LossHistory
from tamiyo.oona import connect

RESTORE, CLIP = AdaptationType.RESTORE, AdaptationType.CLIP_GRADIENTS
NOTHING = "nothing"


def governor_of(loop, losses):
    run = loop("mlp", "adamw")
    run.steps(2)
    governor = Governor(TrainingRun(run.model, run.optimizer), horizon=24)
    for step, loss in enumerate(losses, 1):
        governor.observe_loss(step, loss)
    return run, governor


def open_trial(governor, run, decide, step):
    before = RunSnapshot(TrainingRun(run.model, run.optimizer), step)
    return governor.open_trial(decide(CLIP), lambda: None, before, before.trained, step)


def is_high(loss, bound):
    return not math.isfinite(loss) or loss > bound


losses = st.lists(st.sampled_from([0.5, 1.0, 1.5, 9.0, 70.0, math.nan, math.inf]), max_size=70)


@settings(max_examples=200, deadline=None)
@given(losses, st.sampled_from([1.0, 2.0, math.inf]))
def test_a_jump_is_all_that_is_high_at_the_end(losses, bound):
    history = LossHistory()
    for loss in losses:
        history.observe(loss)
    last = losses[-64:]
    high = list(takewhile(lambda loss: is_high(loss, bound), reversed(last)))
    broken = list(takewhile(lambda loss: not math.isfinite(loss), high))
    spike = len(high) == 1 and not broken
    assert history.since_jump(bound) == (0 if spike else len(broken or high))


@pytest.mark.parametrize(
    ("after", "level"),
    [
        ([math.nan], None),
        ([1.0, math.nan, math.nan], None),
        ([50.0, 60.0, math.inf], None),
        ([50.0, 60.0], 55.0),
        ([40.0, 50.0, 60.0], 50.0),
        ([math.nan, 50.0, 60.0], 55.0),
        ([3.0] * 20 + [50.0] * 8, 50.0),
        ([50.0], 1.0),
        ([50.0, 1.0], 1.0),
        ([math.nan, 1.0], 1.0),
    ],
)
def test_the_level_is_that_of_the_run_as_it_is_now(loop, after, level):
    governor = governor_of(loop, [1.0] * 60 + after)[1]
    assert governor.loss_before() == level


@pytest.mark.parametrize("after", [[50.0, 50.0], [math.nan], [50.0] * 30])
@pytest.mark.parametrize("reported", ["before", "since"])
def test_what_is_older_than_a_jump_is_no_reference(loop, decide, after, reported):
    run, governor = governor_of(loop, [1.0] * 60)
    if reported == "before":
        governor.observe_validation(0.5)
    for step, loss in enumerate(after, 61):
        governor.observe_loss(step, loss)
    if reported == "since":
        governor.observe_validation(0.5)
    trial = open_trial(governor, run, decide, 60 + len(after))
    assert trial.validation == (Validation(0.5) if reported == "since" else None)
    assert trial.latest is None
    assert trial.pace == 0


def test_a_single_spike_takes_nothing_off_the_guard(loop, decide):
    run, governor = governor_of(loop, [1.0] * 60)
    governor.observe_validation(0.5)
    governor.observe_loss(61, 50.0)
    trial = open_trial(governor, run, decide, 61)
    assert (trial.loss_before, trial.latest, trial.validation) == (1.0, 1.0, Validation(0.5))


def test_an_alarm_about_gradients_does_not_age_the_validation(loop, decide):
    run, governor = governor_of(loop, [1.0] * 60)
    governor.observe_validation(0.5)
    for norm in [1.0] * 20 + [1e6] * 3:
        columns = {"flags": np.zeros(1, np.uint8), "gradient_norm": np.array([norm])}
        columns["update_ratio"] = np.array([math.nan])
        governor.observe_sample(Sample(1, columns, np.ones(1)))
    assert governor.alarm == "gradient norm"
    assert open_trial(governor, run, decide, 60).validation == Validation(0.5)


def test_after_a_rollback_the_losses_of_before_count_again(loop, decide):
    run, governor = governor_of(loop, [1.0] * 60)
    governor.observe_validation(0.5)
    open_trial(governor, run, decide, 60)
    for step in range(61, 71):
        governor.observe_loss(step, 50.0)
    governor.observe_validation(9.0)
    assert governor.loss_before() == 50.0
    assert governor.verdict(70)[0] is Outcome.ROLLED_BACK
    governor.close_trial(70, rolled_back=True)
    governor.observe_loss(71, 1.0)
    trial = open_trial(governor, run, decide, 71)
    assert (trial.loss_before, trial.validation) == (1.0, Validation(0.5))


def break_weights(run, value):
    run.model[2].weight.data[0, 0] = value


def break_moments(run, value):
    run.optimizer.state[run.model[2].weight]["exp_avg"][0, 0] = value


BREAKAGES = {"weights": break_weights, "moments": break_moments}


def harm_loss(governor, run):
    governor.observe_loss(61, math.nan)


def harm_level(governor, run):
    for step in range(61, 69):
        governor.observe_loss(step, 500.0)


def harm_validation(governor, run):
    for _ in range(2):
        governor.observe_validation(9.0)


def harm_values(governor, run):
    run.model[0].bias.data[0] = math.nan


HARMS = (harm_loss, harm_level, harm_validation, harm_values)


@settings(max_examples=60, deadline=None)
@given(
    broken=st.sampled_from([NOTHING, "loss", *BREAKAGES]),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
    harm=st.sampled_from(HARMS),
)
def test_no_rollback_leads_into_a_broken_state(loop, decide, broken, value, harm):
    run, governor = governor_of(loop, [1.0] * 59 + [value if broken == "loss" else 1.0])
    governor.observe_validation(0.5)
    if broken in BREAKAGES:
        BREAKAGES[broken](run, value)
    trial = open_trial(governor, run, decide, 60)
    harm(governor, run)
    verdict = governor.verdict(60 + len(trial.losses))
    if broken == NOTHING:
        assert verdict[0] is governor.hurt("")[0] is Outcome.ROLLED_BACK
        return
    assert governor.hurt("")[0] is Outcome.FAILED
    # A loss that was not finite is no level above which another could be.
    assert verdict is None or verdict[0] is Outcome.FAILED
    assert verdict is None or "broken before" in verdict[1]
    assert verdict is not None or broken == "loss"


class Regression:
    """A network that learns a function, watched by a session; its loss falls by decades."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(64, 6, generator=generator)
        self.targets = self.inputs @ torch.randn(6, 2, generator=generator)
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), 3e-3)
        self.client = connect()
        self.session = HostSession(
            self.model,
            self.optimizer,
            self.client,
            run="run",
            mode="autonomous",
            snapshot_budget=1.0,
        )

    def steps(self, count, fault=None):
        """Train; the fault strikes after each optimiser step, before the session sees it."""
        for _ in range(count):
            loss = (self.model(self.inputs) - self.targets).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if fault is not None:
                fault(self.model)
            self.session.step(loss=loss)
        return float(loss.detach())

    def send(self, decision):
        self.client.publish_nowait(Topic.DECISIONS, decision.to_bytes())

    def results(self):
        return {decision.decision_id: result for decision, result in self.session.history}


def spoil(model):
    model[2].weight.data[0, 0] = math.nan


def close(model):
    model[2].bias.data.fill_(-10.0)


@pytest.mark.parametrize("late", [1, 2, 4])
@pytest.mark.parametrize(
    ("fault", "cure", "target"),
    [(spoil, RESTORE, ()), (close, AdaptationType.REINITIALIZE, (2,))],
    ids=["restored", "reinitialised"],
)
def test_the_right_cure_right_after_a_fault_is_kept(decide, fault, cure, target, late):
    run = Regression()
    healthy = run.steps(300)
    fault(run.model)
    run.steps(late)
    run.send(decide(cure, target))
    run.steps(120)
    result = run.results()["d1"]
    assert result.outcome is Outcome.KEPT, result.reason
    # Held against the loss of before the fault it would have been harm.
    assert result.loss_before is None or result.loss_before > 10 * healthy
    assert run.steps(400) < 10 * healthy


def repaired(decide):
    """A run whose weights broke in its last step, and were drawn anew right after it."""
    run = Regression()
    run.steps(200)
    repair = decide(AdaptationType.REINITIALIZE, (2,), name="repair", scope="all")
    run.send(repair)
    run.steps(1, fault=spoil)
    result = run.results()["repair"]
    assert result.outcome is Outcome.APPLIED
    # Nothing but the weights shows that they were broken.
    assert math.isfinite(result.loss_before)
    run.steps(2)
    return run


def stays(result, reason):
    return (
        result.outcome is Outcome.FAILED
        and result.reason.startswith(reason)
        and "broken before" in result.reason
    )


def test_a_restore_that_preempts_a_repair_does_not_break_the_run_again(decide):
    run = repaired(decide)
    run.send(decide(RESTORE, name="restore"))
    run.steps(1)
    assert stays(run.results()["repair"], "pre-empted by restore")
    assert run.results()["restore"].outcome is Outcome.APPLIED
    assert not run.session._governor.trial.before.broken()


def test_a_failure_of_the_host_does_not_break_the_run_again(decide):
    run = repaired(decide)
    run.session._faults.note("governor", RuntimeError("it is to fail here"))
    run.steps(1)
    assert stays(run.results()["repair"], "governor failed")
    assert math.isfinite(run.steps(5))
