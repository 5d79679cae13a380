"""A row says what was done, whether it was right, and survives its file."""

import json
import math

import pytest

from tamiyo.bench.faults import FaultRow, read_rows
from tamiyo.bench.faults.rows import Evaluation

LAYER = (("reinitialize", False), ("change_activation", False))
WHOLE = (("restore", True),)


@pytest.fixture
def faulty(row):
    """Makes a row of a fault in two layers that strikes after 20 steps."""
    base = {"fault": "F5:bias -10", "onset": 20, "culprits": ("hidden1", "hidden2")}
    return lambda **changes: row(**{**base, "cures": LAYER, **changes})


@pytest.mark.parametrize(
    ("cures", "what", "where", "right"),
    [
        (LAYER, "reinitialize", ("hidden2",), True),
        (LAYER, "change_activation", ("hidden1",), True),
        (LAYER, "reinitialize", ("hidden1", "hidden2"), True),
        (LAYER, "reinitialize", ("hidden2", "hidden3"), False),
        (LAYER, "reinitialize", (), False),
        (LAYER, "prune", ("hidden2",), False),
        (WHOLE, "restore", (), True),
        (WHOLE, "restore", ("hidden2",), False),
        ((), "restore", (), False),
    ],
)
def test_right_is_a_cure_in_its_place(faulty, act, cures, what, where, right):
    one = faulty(cures=cures, acts=(act(adaptation=what, target=where),))
    assert one.right is right
    assert one.right_place is (bool(where) and "hidden3" not in where)
    assert one.right_type is (what in {kind for kind, _ in cures})


@pytest.mark.parametrize(("step", "detected"), [(19, False), (20, False), (21, True)])
def test_what_comes_before_the_fault_is_no_detection(faulty, act, step, detected):
    one = faulty(acts=(act(step=step), act(step=40)))
    assert (one.detected, one.right) == (detected, detected)


def test_only_the_first_thing_that_was_done_counts(faulty, act):
    refused, wrong, cure = act(outcome="refused"), act(target=("output",)), act()
    assert faulty(acts=(refused, cure)).right
    assert not faulty(acts=(wrong, cure)).right
    assert not faulty(acts=(refused,)).detected
    assert faulty().first is None


def test_a_healthy_run_has_nothing_to_detect(row, act):
    one = row(acts=(act(),))
    assert one.healthy
    assert not one.detected
    assert not one.right


@pytest.mark.parametrize(
    ("accuracies", "settled"),
    [
        ((0.9, 0.9, 0.9), 10),
        ((0.1, 0.9, 0.9), 20),
        ((0.9, 0.1, 0.9), 30),
        ((0.9, 0.9, 0.1), math.inf),
        ((), math.inf),
    ],
)
def test_settled_is_from_where_on_it_stayed(row, accuracies, settled):
    seen = tuple(Evaluation(10 * n, x, None) for n, x in enumerate(accuracies, 1))
    assert row(evaluations=seen).settled_at(0.8) == settled


def test_a_file_gives_back_the_rows_that_are_whole(tmp_path, faulty, row, act):
    full = faulty(
        acts=(act(verified=True, outcome="rolled_back"), act()),
        evaluations=(Evaluation(4, 0.5, None),),
        problems=("Traceback",),
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(row().to_line() + full.to_line() + row(seed=1).to_line()[:-20])
    assert read_rows(path) == [row(), full]
    found = read_rows(path)[1]
    assert found.acts[0].rolled_back
    assert found.acts[0].verified is True
    assert json.loads(full.to_line())["evaluations"][0]["loss"] is None
    assert read_rows(tmp_path / "nothing") == []


def test_time_makes_no_difference(row):
    assert row(cpu_seconds=1.0) == row(cpu_seconds=2.0) != row(accuracy=0.8)
    assert FaultRow.from_line(row(cpu_seconds=1.5).to_line()).cpu_seconds == 1.5


def test_the_kind_is_what_figures_are_by(row):
    assert row(fault="F12:NaN batch").kind == "F12"
    assert row().kind == "F0"
