"""The tables show what there is, and a bar is missed when it should be."""

from dataclasses import replace

import pytest

from tamiyo.bench.transfer.report import missed, report


@pytest.fixture
def healthy(row):
    """48 healthy runs in which nothing was done."""
    return [row(number=number) for number in range(48)]


def changed(rows, count, **changes):
    """The same rows, the first so many of them changed."""
    return [*(replace(one, **changes) for one in rows[:count]), *rows[count:]]


def test_runs_that_were_left_alone_miss_nothing(healthy):
    assert missed({"rules": healthy}) == []


@pytest.mark.parametrize(("alarms", "wrong"), [(2, 0), (3, 1)])
def test_three_false_alarms_of_forty_eight_are_too_many(healthy, act, alarms, wrong):
    said = missed({"rules": changed(healthy, alarms, acts=(act(),), same_bits=False)})
    assert len(said) == wrong
    assert all(one.startswith("rules: healthy runs to which something was done") for one in said)


def test_harm_counts_by_its_lower_bound(healthy, act):
    hurt = changed(healthy, 1, acts=(act(),), same_bits=False, accuracy=0.7)
    [said] = missed({"rules": healthy, "other": hurt})
    assert said.startswith("other: accuracy gained on healthy runs, lower bound")
    # As much on average, and all in one run instead of in every run.
    even = [replace(one, accuracy=0.9 - 0.2 / 48) for one in healthy]
    assert missed({"rules": even}) == []


def test_watching_must_change_nothing_and_raise_nothing(healthy):
    [moved] = missed({"rules": changed(healthy, 1, same_bits=False)})
    assert "changed by being watched" in moved
    [trouble] = missed({"rules": changed(healthy, 1, problems=("Traceback",))})
    assert "an exception" in trouble


def test_without_healthy_runs_there_is_no_verdict(row):
    with pytest.raises(ValueError, match="no healthy runs"):
        missed({"rules": [row(fault="NaN weight", strike=10)]})


def test_the_tables_have_every_run(healthy, row, act):
    cure = (("restore", None),)
    faulty = row(
        fault="NaN weight", strike=100, cures=cure, clean=0.9, untouched=0.1, acts=(act(),)
    )
    alarm = act(adaptation="prune", target=("hidden1", "hidden2"), reason="too wide")
    shown = report({"rules": [*changed(healthy, 1, acts=(alarm,)), faulty], "none": healthy})
    assert "### Healthy runs\n\n| policy | runs |" in shown
    assert "| rules | 48 | .02 (.00 … .11) |" in shown
    assert "| none | 48 | .00 (.00 … .07) |" in shown
    assert "prune (learning_rate_factor 0.5) | hidden1, hidden2 | rules | kept |" in shown
    assert "too wide" in shown
    assert "| NaN weight | 1 | 1.00 (.21 … 1.00) | .80 (.80 … .80) |" in shown
    assert "| rules | NaN weight | restore (right) | rules | kept | 1 |" in shown
    assert "Faults: none" not in shown
