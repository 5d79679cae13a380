"""The drift of the weights: 1 while nothing changes, and what an adaptation makes of it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.host import TrainingRun
from tamiyo.host.drift import WeightDrift

WINDOW = 4


class Steady:
    """Two matrices that grow by a fixed share of themselves at every step."""

    def __init__(self, kept=32):
        self.model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        self.drift = WeightDrift(TrainingRun(self.model, self.optimizer), window=WINDOW, kept=kept)
        self.done = 0

    def steps(self, count, *, move=0.01, still=()):
        for _ in range(count):
            with torch.no_grad():
                for index, layer in enumerate(self.model):
                    if index not in still:
                        layer.weight.mul_(1 + move)
            self.done += 1
            self.drift.observe(self.done)

    def window(self, move):
        """Relative change in a window of steps."""
        return (1 + move) ** WINDOW - 1


@settings(max_examples=20)
@given(before=st.floats(1e-3, 0.1), after=st.floats(1e-3, 0.1))
def test_the_drift_is_what_the_weights_move_over_what_they_moved(before, after):
    run = Steady()
    run.steps(2 * WINDOW + 2, move=before)
    run.drift.restart(run.done, compare=True)
    run.steps(3 * WINDOW + 2, move=after)
    expected = run.window(after) / run.window(before)
    assert list(run.drift.rates) == pytest.approx([expected] * 3, rel=1e-3)
    assert list(run.drift.unscheduled) == pytest.approx([expected] * 3, rel=1e-3)


def test_what_a_schedule_does_is_told_apart():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    run.drift.restart(run.done, compare=True)
    run.optimizer.param_groups[0]["lr"] *= 0.1
    run.steps(2 * WINDOW + 2, move=0.001)
    assert run.drift.rates[-1] == pytest.approx(0.1, rel=0.05)
    assert run.drift.unscheduled[-1] == pytest.approx(1, rel=0.05)


def test_a_rate_that_came_down_to_zero_says_nothing():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    run.drift.restart(run.done, compare=True)
    run.optimizer.param_groups[0]["lr"] = 0.0
    run.steps(WINDOW + 2, move=0)
    assert run.drift.rates[-1] == 0
    assert math.isnan(run.drift.unscheduled[-1])


def test_a_rate_that_an_adaptation_set_to_zero_hides_nothing():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    run.optimizer.param_groups[0]["lr"] = 0.0
    run.drift.restart(run.done, compare=True)
    run.steps(WINDOW + 2, move=0)
    assert list(run.drift.unscheduled) == [0]


def test_a_matrix_that_was_exchanged_is_not_compared():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    run.model[0].weight = nn.Parameter(torch.ones(5, 3))
    run.drift.restart(run.done, compare=True)
    run.steps(WINDOW + 2, still=(0,))
    assert run.drift.rates[-1] == pytest.approx(1, rel=0.05)
    run.drift.restart(run.done, compare=False)
    run.steps(2 * WINDOW + 2)
    assert all(map(math.isnan, run.drift.rates))


def test_zero_weights_are_no_measure():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    with torch.no_grad():
        run.model[0].weight.zero_()
    run.drift.restart(run.done, compare=True)
    run.steps(WINDOW + 2)
    assert run.drift.rates[-1] == pytest.approx(1, rel=0.05)


def test_the_stillest_matrix_is_told_apart():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    run.drift.restart(run.done, compare=True)
    run.steps(2 * WINDOW + 2, still=(1,))
    assert list(run.drift.stillest) == [0, 0]
    assert list(run.drift.rates) == pytest.approx([0.5, 0.5], rel=0.05)


def test_an_embedding_is_not_measured():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7, bias=False))
    model[1].weight = model[0].weight
    drift = WeightDrift(TrainingRun(model, torch.optim.SGD(model.parameters(), 0.1)), window=1)
    for step in range(4):
        drift.observe(step)
    assert not drift.rates


def test_nothing_is_compared_once_it_is_forgotten():
    run = Steady()
    run.steps(2 * WINDOW + 2)
    run.drift.restart(run.done, compare=True)
    run.steps(WINDOW + 2)
    run.drift.forget()
    assert not run.drift.rates
    run.steps(2 * WINDOW)
    assert all(map(math.isnan, run.drift.rates))


def test_a_model_without_matrices_has_no_drift():
    model = nn.LayerNorm(4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    drift = WeightDrift(TrainingRun(model, optimizer), window=1)
    for step in range(5):
        drift.observe(step)
    drift.restart(5, compare=True)
    assert not drift.rates


def test_windows_become_rare_with_age_and_go_on_at_a_restart():
    run = Steady()
    looks = []
    for _ in range(400):
        due = run.drift.due
        run.steps(1)
        if run.drift.due != due:
            looks.append(run.done)
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert gaps[0] == WINDOW
    assert gaps[-2:] == [WINDOW, int(looks[-2] / 8)] or gaps[-2:] == [int(looks[-3] / 8), WINDOW]
    run.drift.restart(run.done, compare=True)
    run.steps(5 * WINDOW + 1)
    assert list(run.drift.rates) == pytest.approx([1] * 5, rel=1e-3)


def test_a_schedule_since_the_last_window_is_taken_into_account():
    run = Steady()
    run.steps(400)
    run.optimizer.param_groups[0]["lr"] *= 0.1
    run.steps(1, move=0.001)
    run.drift.restart(run.done, compare=True)
    run.steps(2 * WINDOW + 1, move=0.001)
    assert run.drift.rates[-1] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("stops", [False, True])
def test_running_statistics_that_stop_are_noticed(stops):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    drift = WeightDrift(TrainingRun(model, optimizer), window=WINDOW)

    def steps(first, last):
        for step in range(first, last):
            optimizer.zero_grad()
            model(torch.randn(32, 3)).square().mean().backward()
            optimizer.step()
            drift.observe(step)

    steps(1, 30)
    model[1].momentum = 0.0 if stops else 0.1
    drift.restart(29, compare=True)
    steps(30, 50)
    assert len(drift.stillest) > 3
    assert all((still == 0) == stops for still in drift.stillest)


@pytest.mark.parametrize("rising", [False, True])
def test_a_learning_rate_that_was_rising_is_no_effect_of_the_restart(rising):
    run = Steady()
    for _ in range(2 * WINDOW):
        run.optimizer.param_groups[0]["lr"] *= 1.05 if rising else 1.0
        run.steps(1)
    run.optimizer.param_groups[0]["lr"] *= 2
    run.drift.restart(run.done, compare=True)
    assert run.drift.steady is not rising
    run.optimizer.param_groups[0]["lr"] *= 3
    run.steps(WINDOW + 1)
    assert list(run.drift.shares) == pytest.approx([3])
