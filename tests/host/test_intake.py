"""In a quiet run the host only takes losses; whatever is remarkable wakes it at once."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.host import TrainingRun
from tamiyo.host.governor import Governor
from tamiyo.host.intake import SECONDS, STRIDE, LossIntake


def quiet():
    model = torch.nn.Linear(2, 2)
    run = TrainingRun(model, torch.optim.SGD(model.parameters(), 0.1))
    governor = Governor(run, horizon=600)
    intake = LossIntake(governor)
    for step in range(1, 41):
        intake.take(step, 1.0)
    intake.hand_over()
    governor.consider_snapshot(40)
    intake.rest(40, 0.0)
    return governor, intake


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e6, None])
def test_what_is_remarkable_ends_the_rest(loss):
    _, intake = quiet()
    intake.take(41, 1.0)
    assert intake.resting(41, 0.0)
    intake.take(42, loss)
    assert not intake.resting(42, 0.0)


def test_a_loss_that_cannot_be_read_ends_it():
    _, intake = quiet()
    with pytest.raises(ValueError, match="no number"):
        intake.take(41, "no number")
    assert not intake.resting(41, 0.0)


def test_it_lasts_for_a_stride_or_until_there_is_something_to_do():
    governor, intake = quiet()
    assert [step for step in range(41, 90) if intake.resting(step, 0.0)] == [
        *range(41, 40 + STRIDE)
    ]
    intake.rest(40, 0.0, None, 3)
    assert [step for step in range(41, 90) if intake.resting(step, 0.0)] == [41]
    assert governor.next_look > 40 + STRIDE
    intake.rest(governor.next_look - 2, 0.0)
    assert intake.resting(governor.next_look - 1, 0.0)
    assert not intake.resting(governor.next_look, 0.0)


def test_it_is_short_where_steps_are_long():
    _, intake = quiet()
    assert intake.resting(41, 0.9 * SECONDS)
    assert not intake.resting(41, 1.1 * SECONDS)


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 10) | st.just(math.nan), max_size=60), st.data())
def test_the_governor_learns_of_every_loss_in_order(losses, data):
    governor, intake = quiet()
    other, _ = quiet()
    for step, loss in enumerate(losses, start=41):
        intake.take(step, loss)
        other.observe_loss(step, loss)
        if data.draw(st.booleans()):
            intake.hand_over()
    intake.hand_over()
    assert governor.history.seen == other.history.seen == 40 + len(losses)
    assert governor.history.level() == other.history.level()
    assert governor.alarm == other.alarm
