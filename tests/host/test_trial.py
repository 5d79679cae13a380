"""The judgement of an adaptation by the losses, the drift and the validation that follow it."""

import math

import pytest

from tamiyo.contracts import AdaptationType, Outcome
from tamiyo.host.trial import INVALIDATED, Trial, Validation

HORIZON = 96
"""Six windows of 16 steps."""


def trial_of(decide, **changes):
    """A trial in a run whose loss fell from 1.5 to 1 in the last 32 steps, with noise .02."""
    facts = {
        "loss_before": 1.2,
        "spread": 0.15,
        "initial": 2.3,
        "latest": 1.0,
        "noise": 0.02,
        "pace": 0.4,
        "rates": [],
        "unscheduled": [],
    } | changes
    decision = decide(AdaptationType.CLIP_GRADIENTS)
    return Trial(decision, lambda: None, None, None, 0, HORIZON, **facts)


def play(trial, losses, drift=1.0, validations=()):
    """Step through the losses until there is a verdict; the drift is a number or a function."""
    for step, loss in enumerate(losses, 1):
        trial.observe(loss)
        if step % 16 == 0:
            rate = drift(step) if callable(drift) else drift
            trial.rates.append(rate)
            trial.unscheduled.append(rate)
        if step in dict(validations):
            trial.validations.append(Validation(*dict(validations)[step]))
        verdict = trial.verdict(step)
        if verdict is not None:
            return step, *verdict
    return None


def falling(steps, start=1.0, rate=0.01):
    return [start * math.exp(-rate * step) for step in range(steps)]


def test_a_run_that_goes_on_as_before_keeps_what_was_adapted(decide):
    assert play(trial_of(decide), falling(HORIZON)) == (HORIZON, Outcome.KEPT, "")


def test_a_loss_that_levels_off_near_its_end_is_no_harm(decide):
    losses = falling(40, rate=0.03) + [0.3] * HORIZON
    assert play(trial_of(decide), losses)[1] is Outcome.KEPT


def test_a_network_that_no_longer_moves_is_taken_back(decide):
    step, outcome, reason = play(trial_of(decide), [0.95] * HORIZON, drift=0.001)
    assert (step, outcome) == (HORIZON, Outcome.ROLLED_BACK)
    assert "slowed" in reason


@pytest.mark.parametrize(
    ("stillest", "outcome"),
    [([0.0] * 6, Outcome.ROLLED_BACK), ([0.0] * 5 + [0.1], Outcome.KEPT)],
)
def test_a_single_layer_that_no_longer_moves_is_enough(decide, stillest, outcome):
    assert play(trial_of(decide, stillest=stillest), falling(HORIZON))[1] is outcome


@pytest.mark.parametrize(
    ("pace", "losses", "outcome"),
    [
        (0.4, [0.98 - 0.001 * step for step in range(HORIZON)], Outcome.ROLLED_BACK),
        (0.4, falling(HORIZON, rate=0.05), Outcome.KEPT),
        (0.0, [1.0] * HORIZON, Outcome.ROLLED_BACK),
        (0.0, [0.9] * HORIZON, Outcome.KEPT),
    ],
)
def test_slower_weights_must_pay(decide, pace, losses, outcome):
    assert play(trial_of(decide, pace=pace), losses, drift=0.1)[1] is outcome


@pytest.mark.parametrize(
    ("unscheduled", "outcome"), [(1.0, Outcome.KEPT), (0.1, Outcome.ROLLED_BACK)]
)
def test_what_a_schedule_slows_down_is_not_held_against_it(decide, unscheduled, outcome):
    trial = trial_of(decide, pace=0.0, unscheduled=[unscheduled] * 6)
    trial.rates.extend([0.1] * 6)
    for _ in range(HORIZON):
        trial.observe(0.99)
    assert trial.verdict(HORIZON)[0] is outcome


def test_a_jump_must_be_made_good_soon(decide):
    lasting = [1.3] * 10 + falling(HORIZON, start=1.2, rate=0.002)
    step, outcome, reason = play(trial_of(decide), lasting)
    assert (step, outcome) == (24, Outcome.ROLLED_BACK)
    assert "did not come back" in reason
    made_good = [1.3] * 8 + falling(HORIZON, start=0.7)
    assert play(trial_of(decide), made_good)[1] is Outcome.KEPT


@pytest.mark.parametrize(("latest_noise", "outcome"), [(0.0, Outcome.ROLLED_BACK), (0.2, None)])
def test_what_a_restless_run_does_is_no_jump(decide, latest_noise, outcome):
    trial = trial_of(decide, latest_noise=latest_noise)
    verdict = play(trial, [1.15] * 8 + [1.0] * 16)
    assert (verdict and verdict[1]) is outcome


@pytest.mark.parametrize(("noise", "outcome"), [(0.1, Outcome.ROLLED_BACK), (0.5, None)])
def test_a_loss_that_is_up_beyond_doubt_needs_no_jump(decide, noise, outcome):
    trial = trial_of(decide, latest=1.2, noise=noise, pace=0.0)
    verdict = play(trial, [1.35] * 24)
    assert (verdict and verdict[1]) is outcome


def test_a_trial_goes_on_while_the_learning_rate_rises(decide):
    rising = trial_of(decide, shares=[1.5, 2.5])
    for _ in range(HORIZON):
        rising.observe(0.5)
    assert rising.verdict(HORIZON) is None
    settled = trial_of(decide, shares=[1.5, 2.5, 2.5])
    assert play(settled, falling(HORIZON)) == (HORIZON, Outcome.KEPT, "")


@pytest.mark.parametrize(
    ("steady", "outcome"), [(True, Outcome.ROLLED_BACK), (False, Outcome.KEPT)]
)
def test_a_learning_rate_that_never_stops_rising_must_have_risen_before(decide, steady, outcome):
    trial = trial_of(decide, shares=[2, 3, 4], steady=steady)
    assert play(trial, falling(4 * HORIZON))[:2] == (3 * HORIZON, outcome)
    ended = trial_of(decide, shares=[2, 3, 4], steady=steady)
    for _ in range(HORIZON):
        ended.observe(0.5)
    assert ended.verdict(HORIZON, last=True)[0] is outcome


def test_weights_that_are_shaken_must_gain_what_the_run_would_have(decide):
    idle = [0.99] * HORIZON
    assert play(trial_of(decide, pace=0.2), idle, drift=5.0)[2].endswith("the disturbance")
    gained = falling(HORIZON, rate=0.03)
    assert play(trial_of(decide), gained, drift=lambda step: 5.0 if step < 20 else 1.0)[1] is (
        Outcome.KEPT
    )


def test_a_trial_goes_on_while_the_weights_move_faster_and_faster(decide):
    losses = falling(HORIZON) + [0.4] * HORIZON + [3.0] * 20
    step, outcome, _ = play(trial_of(decide), losses, drift=lambda step: 1.02**step)
    assert outcome is Outcome.ROLLED_BACK
    assert 2 * HORIZON < step <= 2 * HORIZON + 8


def test_a_trial_does_not_go_on_for_ever(decide):
    losses = falling(4 * HORIZON)
    step, outcome, _ = play(trial_of(decide), losses, drift=lambda step: 1.02**step)
    assert (step, outcome) == (3 * HORIZON, Outcome.KEPT)


def test_a_loss_that_stands_still_after_it_fell_is_taken_back(decide):
    step, outcome, reason = play(trial_of(decide), [0.95] * 3 * HORIZON)
    assert (step, outcome) == (2 * HORIZON, Outcome.ROLLED_BACK)
    assert "no longer falls" in reason


@pytest.mark.parametrize("bad", [1.4, math.inf, math.nan])
def test_validation_must_fail_twice(decide, bad):
    trial = trial_of(decide, validation=Validation(0.8))
    step, outcome, reason = play(
        trial, falling(HORIZON), validations=[(30, (bad,)), (60, (bad,)), (90, (0.8,))]
    )
    assert (step, outcome) == (60, Outcome.ROLLED_BACK)
    assert "validation" in reason
    once = trial_of(decide, validation=Validation(0.8))
    found = play(once, falling(HORIZON), validations=[(30, (bad,)), (60, (0.8,))])
    assert found[1] is Outcome.KEPT


@pytest.mark.parametrize(
    ("loss", "accuracy", "outcome"),
    [
        (1.4, 0.7, Outcome.KEPT),
        (1.4, 0.615, Outcome.ROLLED_BACK),
        (1.4, None, Outcome.ROLLED_BACK),
        (math.inf, 0.9, Outcome.ROLLED_BACK),
    ],
)
def test_a_network_that_is_right_more_often_may_be_surer_where_it_is_wrong(
    decide, loss, accuracy, outcome
):
    trial = trial_of(decide, validation=Validation(0.8, 0.6))
    told = [(30, (loss, accuracy)), (60, (loss, accuracy))]
    assert play(trial, falling(HORIZON), validations=told)[1] is outcome
    # Nothing excuses it where nothing is known of the accuracy before.
    unknown = trial_of(decide, validation=Validation(0.8))
    assert play(unknown, falling(HORIZON), validations=told)[1] is Outcome.ROLLED_BACK


def test_weights_that_were_thrown_about_may_calm_down_where_the_run_begins_to_learn(decide):
    def settled(losses, **changes):
        before = {"loss_before": 2.3, "latest": 2.3, "pace": 0.0, "initial": 2.3}
        trial = trial_of(decide, stillest=[0.001] * 6, **before | changes)
        return play(trial, losses, drift=0.01)[1]

    assert settled(falling(HORIZON, start=2.3, rate=0.01)) is Outcome.KEPT
    assert settled(falling(HORIZON, start=2.3, rate=0.0005)) is Outcome.ROLLED_BACK
    # What learned before has to go on learning, in all of its layers.
    going = {"loss_before": 2.7, "pace": 0.4}
    assert settled(falling(HORIZON, start=2.3), **going) is Outcome.ROLLED_BACK
    # Nor is it a gain that the noise explains.
    noisy = falling(HORIZON, start=2.3, rate=0.002)
    assert settled(noisy, noise=0.5) is Outcome.ROLLED_BACK


def test_a_run_that_was_cut_off_has_nothing_to_lose_but_time(decide):
    dead = {"loss_before": 2.3, "latest": 2.3, "pace": 0.0, "initial": 2.3}
    standstill = [2.3] * HORIZON
    assert play(trial_of(decide, **dead), standstill, drift=0.1)[1] is Outcome.ROLLED_BACK
    cut = trial_of(decide, cut_off=True, **dead)
    assert play(cut, standstill, drift=0.1)[1] is Outcome.KEPT
    # What is brought to life may be worse than nothing at first, but not at the horizon.
    unruly = [3.4] * 30 + [1.5] * (HORIZON - 30)
    assert play(trial_of(decide, **dead), unruly)[1] is Outcome.ROLLED_BACK
    assert play(trial_of(decide, cut_off=True, **dead), unruly)[1] is Outcome.KEPT
    worse = play(trial_of(decide, cut_off=True, **dead), [2.7] * HORIZON)
    assert worse == (HORIZON, Outcome.ROLLED_BACK, "the loss is higher than before")
    told = [(step, (9.0,)) for step in (30, 60, 90)]
    lost = trial_of(decide, cut_off=True, validation=Validation(2.3), **dead)
    assert play(lost, unruly, validations=told)[::2] == (HORIZON, INVALIDATED)
    again = trial_of(decide, cut_off=True, validation=Validation(2.3), **dead)
    assert play(again, unruly, validations=[*told[:2], (90, (1.6,))])[1] is Outcome.KEPT


def test_the_loss_of_a_run_that_was_cut_off_must_not_explode(decide):
    dead = {"loss_before": 2.3, "latest": 2.3, "pace": 0.0, "initial": 2.3, "cut_off": True}
    assert play(trial_of(decide, **dead), [9.0] * HORIZON)[0] < HORIZON


def test_a_run_that_validates_is_waited_for(decide):
    waiting = trial_of(decide, validation=Validation(0.8))
    step, _, _ = play(waiting, falling(4 * HORIZON), validations=[(HORIZON + 5, (0.7,))])
    assert step == 2 * HORIZON
    never = trial_of(decide, validation=Validation(0.8))
    assert play(never, falling(4 * HORIZON))[0] == 3 * HORIZON


def test_the_end_of_the_session_is_the_last_chance_to_judge(decide):
    trial = trial_of(decide, latest=None)
    for _ in range(40):
        trial.observe(1.9)
    assert trial.verdict(40) is None
    assert trial.verdict(40, last=True)[0] is Outcome.ROLLED_BACK
    short = trial_of(decide)
    for _ in range(10):
        short.observe(1.4)
    assert short.verdict(10, last=True) is None


def test_a_run_in_trouble_is_judged_by_its_level_alone(decide):
    trial = trial_of(decide, latest=None, pace=0.0)
    assert play(trial, [1.2] * HORIZON, drift=math.nan) == (HORIZON, Outcome.KEPT, "")
