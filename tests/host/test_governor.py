import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.contracts import AdaptationType, Outcome
from tamiyo.host import RunSnapshot, TrainingRun
from tamiyo.host.governor import Governor
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.snapshot import state_bytes
from tamiyo.host.trial import Trial, Validation
from tamiyo.host.watch import LossHistory, RobustWatch


def watch_of(values):
    watch = RobustWatch()
    for value in values:
        watch.observe(value)
    return watch


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), decay=st.floats(0, 0.05), noise=st.floats(0, 0.3))
def test_falling_noisy_losses_raise_no_alarm(seed, decay, noise):
    generator = torch.Generator().manual_seed(seed)
    watch = RobustWatch()
    for step in range(400):
        factor = 1 + noise * float(torch.randn((), generator=generator).clamp(-3, 3))
        watch.observe(2.3 * math.exp(-decay * step) * factor)
        assert not watch.alarm


def test_an_alarm_needs_several_high_values_and_stays_until_they_are_gone():
    watch = watch_of([1.0, 1.1, 0.9] * 10)
    for _ in range(4):
        assert not watch.observe(9.0)
        assert watch.suspicious
    assert watch.observe(9.0)
    for _ in range(9):
        assert watch.observe(1.0)
    assert not watch.observe(1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_raises_the_alarm_at_once(value):
    assert watch_of([1.0] * 30).observe(value)
    assert RobustWatch().observe(value)


def test_a_single_spike_is_forgiven_and_does_not_move_the_norm():
    watch = watch_of([1.0] * 30)
    for _ in range(20):
        assert not watch.observe(100.0)
        assert not watch.observe(1.0)
    assert [watch.observe(100.0) for _ in range(5)] == [False] * 4 + [True]


def test_after_long_patience_the_present_is_the_new_norm():
    watch = RobustWatch(patience=50)
    for _ in range(30):
        watch.observe(1.0)
    alarms = [watch.observe(9.0) for _ in range(120)]
    assert alarms[10]
    assert not alarms[-1]


def test_loss_history_reports_medians_and_counts():
    history = LossHistory()
    for loss in (1.0, 2.0, 3.0, math.nan):
        history.observe(loss)
    assert history.report() == (2.0, 1)
    assert history.report() == (None, 0)
    assert history.level() == 2.0
    for _ in range(8):
        history.observe(math.nan)
    assert history.level(LossHistory.SHORT) is None
    assert history.slow_level is None
    for loss in range(32):
        history.observe(float(loss))
    assert history.slow_level == pytest.approx(14.0, abs=1.5)


def test_noise_that_came_up_lately_shows_in_the_last_losses():
    history = LossHistory()
    for step in range(64):
        history.observe(1 + (0.01 if step < 48 else 0.2) * (-1) ** step)
    assert history.noise(16) == pytest.approx(0.4 * 1.4826 / 2**0.5)
    assert history.noise() == pytest.approx(0.02 * 1.4826 / 2**0.5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fall=st.floats(0, 0.05),
    noise=st.floats(1e-3, 1),
)
def test_noise_is_told_from_trend(seed, fall, noise):
    generator = torch.Generator().manual_seed(seed)
    history = LossHistory()
    for step in range(64):
        history.observe(9 - fall * step + noise * float(torch.randn((), generator=generator)))
    # Sixty-four values tell a deviation to a third; the trend adds its slope at most, on the scale
    # that turns differences into deviations.
    assert 0.5 * noise < history.noise() < 1.7 * noise + 1.05 * fall


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(1e-3, 1), count=st.integers(32, 200))
def test_noise_alone_has_no_pace(seed, noise, count):
    generator = torch.Generator().manual_seed(seed)
    history = LossHistory()
    for _ in range(count):
        history.observe(1 + noise * float(torch.randn((), generator=generator)))
    assert history.pace() == 0


@pytest.mark.parametrize("count", [32, 50, 64, 200])
def test_the_pace_is_the_fall_in_thirty_two_steps(count):
    history = LossHistory()
    for step in range(count):
        history.observe(9 - 0.02 * step + 0.01 * (-1) ** step)
    assert history.pace() == pytest.approx(0.64, rel=0.05)


def test_a_pace_needs_enough_finite_losses():
    history = LossHistory()
    for step in range(31):
        history.observe(9 - 0.1 * step)
    assert history.pace() == 0
    history.observe(5.9)
    assert history.pace() > 0
    history.observe(math.nan)
    assert history.pace() == 0


def training(loop):
    run = loop("mlp", "adamw")
    run.steps(1)
    return run, TrainingRun(run.model, run.optimizer)


def test_a_snapshot_is_good_only_after_healthy_steps(loop):
    _, run = training(loop)
    keeper = SnapshotKeeper(run, share=1.0, memory=1 << 30, proof=5)
    keeper.consider(1, checks=1)
    for checks in range(2, 6):
        keeper.consider(checks, checks=checks)
        assert keeper.good is None
    keeper.consider(6, checks=6)
    assert keeper.good.step == 1
    keeper.consider(7, checks=7)
    keeper.drop_candidate()
    keeper.consider(20, checks=20)
    assert keeper.good.step == 1


def test_snapshots_keep_to_their_memory(loop):
    _, run = training(loop)
    keeper = SnapshotKeeper(run, share=1.0, memory=state_bytes(run) // 2, proof=1)
    for step in range(10):
        keeper.consider(step, checks=step)
    assert keeper.good is None
    assert keeper.capture(10) is None


def trial_of(decide, loss_before=1.0, kind=AdaptationType.CLIP_GRADIENTS, horizon=40):
    return Trial(decide(kind), lambda: None, None, None, 100, horizon, loss_before, 0.05, 2.3)


@pytest.mark.parametrize(
    ("before", "losses", "expected"),
    [
        (1.0, [1.0] * 40, Outcome.KEPT),
        (1.0, [0.5] * 40, Outcome.KEPT),
        (1.0, [1.3] * 40, Outcome.ROLLED_BACK),
        (1.0, [math.nan], Outcome.ROLLED_BACK),
        (1.0, [5.0] * 8, Outcome.ROLLED_BACK),
        (None, [0.5] * 40, Outcome.KEPT),
        (None, [math.nan], Outcome.ROLLED_BACK),
        (1.0, [5.0] * 7, None),
        (1.0, [1.0] * 39, None),
        (1.0, [], None),
    ],
)
def test_verdicts(decide, before, losses, expected):
    trial = trial_of(decide, before)
    for loss in losses:
        trial.observe(loss)
    verdict = trial.verdict(100 + len(losses))
    assert (verdict and verdict[0]) == expected


def test_without_losses_an_adaptation_is_kept_unjudged(decide):
    outcome, reason = trial_of(decide).verdict(140)
    assert outcome is Outcome.KEPT
    assert "not known" in reason


def test_no_candidate_survives_trouble(loop):
    _, run = training(loop)
    governor = Governor(run, snapshot_share=1.0, proof=10)
    for step in range(1, 60):
        governor.observe_loss(step, 1.0)
        governor.consider_snapshot(step)
    good = governor.keeper.good
    assert good is not None
    for step in range(60, 80):
        governor.observe_loss(step, 50.0)
        governor.consider_snapshot(step)
    assert governor.alarm == "loss"
    assert governor.keeper.good is good
    assert governor.keeper._candidate is None


def test_validation_before_a_trial_is_what_it_is_held_to(loop, decide):
    _, run = training(loop)
    governor = Governor(run, horizon=20)
    for step in range(1, 60):
        governor.observe_loss(step, 1.0)
    governor.observe_validation(0.5)
    before = RunSnapshot(run, 60)
    trial = governor.open_trial(
        decide(AdaptationType.WIDEN), lambda: None, before, before.trained, 60
    )
    assert trial.validation == Validation(0.5)
    for loss in (5.0, 6.0):
        governor.observe_validation(loss)
    assert governor.verdict(61)[0] is Outcome.ROLLED_BACK
    governor.close_trial(61, rolled_back=True)
    after = governor.open_trial(
        decide(AdaptationType.WIDEN), lambda: None, before, before.trained, 61
    )
    assert after.validation == Validation(0.5)


def test_in_an_alarm_only_the_level_counts(loop, decide):
    _, run = training(loop)
    governor = Governor(run)
    for step in range(1, 60):
        governor.observe_loss(step, 1.0 if step < 50 else 90.0)
    before = RunSnapshot(run, 60)
    trial = governor.open_trial(
        decide(AdaptationType.RESTORE), lambda: None, before, before.trained, 60
    )
    assert governor.alarm == "loss"
    assert trial.loss_before == 90.0
    assert trial.latest is None
    assert trial.pace == 0


def test_values_that_are_not_finite_are_never_kept(loop, decide):
    made, run = training(loop)
    governor = Governor(run, horizon=20)
    for step in range(1, 60):
        governor.observe_loss(step, 1.0)
    before = RunSnapshot(run, 60)
    with torch.no_grad():
        made.model[0].bias[0] = math.nan
    governor.open_trial(decide(AdaptationType.PRUNE), lambda: None, before, before.trained, 60)
    outcome, reason = governor.verdict(60)
    assert outcome is Outcome.ROLLED_BACK
    assert "not finite" in reason


def test_without_losses_nothing_is_kept(loop):
    _, run = training(loop)
    governor = Governor(run, snapshot_share=1.0)
    for step in range(1, 200):
        governor.consider_snapshot(step)
    assert governor.keeper.good is None


def test_a_snapshot_knows_its_size(loop):
    _, run = training(loop)
    assert RunSnapshot(run, 1).nbytes == state_bytes(run)


def test_a_lack_of_room_is_not_found_out_again_at_every_step(loop):
    class Counting(torch.nn.Linear):
        measured = 0

        def buffers(self, recurse=True):
            Counting.measured += 1
            return super().buffers(recurse)

    model = Counting(2, 2)
    run = TrainingRun(model, torch.optim.SGD(model.parameters(), 0.1))
    keeper = SnapshotKeeper(run, share=1e-9, memory=0, proof=1)
    for step in range(300):
        keeper.consider(step, checks=step)
    assert Counting.measured == 2  # the first is free, and what it costs is known after it
    assert keeper.good is None
