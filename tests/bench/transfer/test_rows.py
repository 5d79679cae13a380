"""A row says what was done, whether it was right, and survives its file."""

import json

import pytest

from tamiyo.bench.transfer import Row, read_rows

LAYER = (("reinitialize", "hidden2"),)
WHOLE = (("restore", None), ("scale_learning_rate", None))


@pytest.mark.parametrize(
    ("cures", "what", "where", "right"),
    [
        (LAYER, "reinitialize", ("hidden2",), True),
        (LAYER, "reinitialize", ("hidden1",), False),
        (LAYER, "reinitialize", ("hidden1", "hidden2"), False),
        (LAYER, "reinitialize", (), False),
        (LAYER, "restore", (), False),
        (WHOLE, "restore", (), True),
        (WHOLE, "scale_learning_rate", (), True),
        (WHOLE, "scale_learning_rate", ("hidden2",), False),
        (WHOLE, "scale_learning_rate", ("hidden1", "hidden2"), False),
    ],
)
def test_right_is_a_cure_in_its_place(row, act, cures, what, where, right):
    done = act(adaptation=what, target=where, step=101)
    one = row(fault="dying ReLU", strike=100, cures=cures, acts=(done,))
    assert (one.answered, one.right) == (True, right)


def test_what_is_done_before_the_fault_is_no_answer(row, act):
    early = act(adaptation="reinitialize", target=("hidden2",), step=100)
    one = row(fault="dying ReLU", strike=100, cures=LAYER, acts=(early,))
    assert (one.answered, one.right) == (False, False)


def test_only_the_first_thing_done_counts(row, act):
    cure = act(adaptation="reinitialize", target=("hidden2",))
    other = act(step=150)
    refused = act(step=120, outcome="refused")
    base = row(fault="zero layer", strike=100, cures=LAYER)
    assert row(fault="zero layer", strike=100, cures=LAYER, acts=(refused, cure)).right
    wrong = row(fault="zero layer", strike=100, cures=LAYER, acts=(other, cure))
    assert (wrong.right, wrong.answered) == (False, True)
    assert (base.right, base.answered, base.first) == (False, False, None)


@pytest.mark.parametrize(
    ("outcome", "done", "kept"),
    [
        ("kept", True, True),
        ("rolled_back", True, False),
        ("applied", True, False),
        ("failed", True, False),
        ("refused", False, False),
        ("expired", False, False),
    ],
)
def test_done_is_what_changed_the_model(act, outcome, done, kept):
    assert (act(outcome=outcome).done, act(outcome=outcome).kept) == (done, kept)


def test_a_healthy_run_has_nothing_to_answer(row, act):
    one = row(acts=(act(),))
    assert (one.answered, one.right) == (False, False)


def test_a_file_gives_back_the_rows_that_are_whole(tmp_path, row, act):
    full = row(
        fault="dying ReLU",
        strike=100,
        place="hidden2",
        cures=(*LAYER, *WHOLE),
        acts=(act(), act(target=("hidden1",))),
        loss=None,
        problems=("Traceback",),
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(row().to_line() + full.to_line() + row(number=1).to_line()[:-20])
    found = read_rows(path)
    assert found == [row(), full]
    assert found[1].right is full.right
    assert found[1].acts[1].target == ("hidden1",)
    assert json.loads(full.to_line())["loss"] is None
    assert read_rows(tmp_path / "nothing") == []


def test_the_time_that_a_run_took_makes_no_difference(row):
    assert row(seconds=1.0) == row(seconds=2.0) != row(accuracy=0.8)
    assert Row.from_line(row(seconds=1.5).to_line()).seconds == 1.5
