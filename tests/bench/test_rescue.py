"""Comparisons judge runs by their numbers, and runs differ only in what was done to them."""

import math

import pytest
import torch

import tamiyo
from tamiyo.bench import Comparison, TrainingRecord, train
from tamiyo.envs import dead_layer, digits_mlp, learning_rate_raised

EARLY, LATE = dead_layer(100, layer=1), learning_rate_raised(300)


def record(*accuracies, faults=()):
    """A run whose held-out accuracy was measured every 50 steps."""
    evaluations = [(50 * (i + 1), 1.0, accuracy) for i, accuracy in enumerate(accuracies)]
    return TrainingRecord("run", evaluations=evaluations, faults=faults)


@pytest.mark.parametrize(
    ("healthy", "alone", "rescued", "proves", "share", "close"),
    [
        (0.95, 0.10, 0.94, True, 0.84 / 0.85, True),
        (0.95, 0.10, 0.91, True, 0.81 / 0.85, False),
        (0.95, 0.10, 0.10, True, 0.0, False),
        (0.95, 0.80, 0.95, False, 1.0, True),
    ],
)
def test_a_comparison_judges_itself(healthy, alone, rescued, proves, share, close):
    comparison = Comparison(0, record(healthy), record(alone), record(rescued))
    assert comparison.proves_something is proves
    assert comparison.recovered_share == pytest.approx(share)
    assert comparison.is_close is close


def test_without_a_loss_there_is_no_share_to_win_back():
    assert math.isnan(Comparison(0, record(0.9), record(0.9), record(0.9)).recovered_share)


def test_recovery_is_counted_from_its_own_fault_to_the_next():
    healthy = record(*[0.9] * 8)
    faults = (EARLY, LATE)
    back = record(0.9, 0.9, 0.1, 0.88, 0.9, 0.9, 0.1, 0.9, faults=faults)
    away = record(0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, faults=faults)
    comparison = Comparison(0, healthy, away, back)
    assert comparison.steps_to_recovery(back, EARLY) == 100
    assert comparison.steps_to_recovery(back, LATE) == 100
    assert math.isnan(comparison.steps_to_recovery(away, EARLY))


def test_runs_of_one_seed_are_equal_until_the_fault():
    task = digits_mlp(steps=60, width=16)
    fault = learning_rate_raised(30)
    one, same = train("a", task, 3), train("b", task, 3)
    faulty, other = train("c", task, 3, faults=[fault]), train("d", task, 4)
    assert one.losses == same.losses
    assert faulty.losses[:31] == one.losses[:31]
    assert faulty.losses[32:] != one.losses[32:]
    assert other.losses != one.losses


def test_a_run_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    train("a", digits_mlp(steps=2, width=16), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_controlled_run_records_what_tamiyo_saw():
    task = digits_mlp(steps=60, width=16)
    steps = []
    run = train(
        "a",
        task,
        0,
        attach=tamiyo.attach,
        on_step=lambda record, _: steps.append(len(record.losses)),
    )
    assert steps == list(range(1, 61))
    assert run.stats["host"]["steps"] == 60
    assert len(run.topology) == 7
    assert [step for step, _loss, _accuracy in run.evaluations] == [50, 60]
