"""The report follows from the rows, and a bar is missed when it should be."""

import math
import re
from xml.etree import ElementTree

import pytest

from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.faults.bars import BARS, Bar, judged, missed, summary
from tamiyo.bench.faults.cohort import Rows
from tamiyo.bench.faults.report import html, markdown

from .test_figures import DEAD


@pytest.fixture
def rows(row, act):
    """A measurement in which `learned` mends what the oracle mends, at once and for nothing."""
    found = [row(seed=seed, accuracy=0.95) for seed in range(10)]
    for seed in range(5):
        found.append(row(**DEAD, seed=seed, accuracy=0.4))
        for policy in ("oracle", "learned"):
            found.append(row(**DEAD, seed=seed, policy=policy, accuracy=0.95, acts=(act(step=10),)))
            found.append(row(seed=seed, policy=policy, accuracy=0.95))
    return found


def changed(rows, policy, healthy, count, **changes):
    """The same rows, the first so many of a kind changed."""
    kept, left = [], count
    for one in rows:
        if one.policy == policy and one.healthy is healthy and left:
            fields = {name: getattr(one, name) for name in one.__dataclass_fields__}
            kept.append(type(one)(**{**fields, **changes}))
            left -= 1
        else:
            kept.append(one)
    return kept


def test_whoever_mends_everything_misses_nothing(rows):
    assert missed(Rows(rows), ["learned"]) == []


@pytest.mark.parametrize(
    ("healthy", "count", "changes", "said"),
    [
        (True, 1, {"acts": "act"}, "false alarms"),
        (True, 1, {"accuracy": 0.5}, "lower bound"),
        (True, 5, {"cpu_seconds": 1.1}, "compute of healthy runs"),
        (False, 5, {"cpu_seconds": 1.4}, "compute of faulty runs"),
        (False, 1, {"accuracy": 0.4}, "repaired in place"),
        (False, 2, {"acts": ()}, "decision accuracy"),
        (False, 2, {"acts": ()}, "culprit layer"),
        (False, 2, {"acts": ()}, "balanced accuracy"),
    ],
)
def test_bars_are_missed(rows, act, healthy, count, changes, said):
    changes = {name: (act(),) if value == "act" else value for name, value in changes.items()}
    wrong = missed(Rows(changed(rows, "learned", healthy, count, **changes)), ["learned"])
    assert any(said in one for one in wrong)
    assert all(one.startswith("learned: ") for one in wrong)


def test_a_rollback_that_was_not_verified_is_missed(rows, act):
    undone = act(step=10, outcome="rolled_back", verified=False)
    wrong = missed(Rows(changed(rows, "learned", False, 1, acts=(undone,))), ["learned"])
    assert any("rollbacks verified" in one for one in wrong)


def test_what_is_unknown_is_missed():
    bar = Bar("share", "gained", least=0.5)
    nothing = Figure(math.nan, math.nan, math.nan, 0)
    assert "nan" in bar.missed(nothing)
    assert bar.missed(Figure(0.5, 0.1, 0.9, 3)) is None
    assert "at least 0.5" in bar.missed(Figure(0.4, 0.1, 0.9, 3))
    assert "at most 1" in Bar("x", "y", most=1.0).missed(Figure(2.0, 1.0, 3.0, 3))


def test_bars_are_held_against_the_learned_policy_or_whoever_acts():
    assert judged(["no-op", "rules", "oracle"]) == ["rules"]
    assert judged(["rules", "learned", "oracle"]) == ["learned"]
    assert judged(["oracle"]) == []


def test_every_bar_is_of_a_figure(rows):
    assert {bar.figure for bar in BARS} <= set(summary(Rows(rows), "learned"))


def test_the_report_has_every_policy_fault_and_alarm(rows, act):
    alarm = act(step=70, adaptation="prune", reason="too wide")
    text = markdown(Rows(changed(rows, "learned", True, 1, acts=(alarm,))), "the command")
    assert "| learned | 5 harmed of 5, 5 healthy | .20 (.04 … .62) |" in text
    assert "### Faults: learned" in text
    assert "### Faults: no-op" not in text
    assert "| F5:bias -10 | small | circles | train | 0.950 | 0.400 | 5 of 5 | 0.950 |" in text
    assert "| learned | small, circles | 0 | 70 | prune | hidden2 | kept | 0.950 → 0.950 |" in text
    assert "re-created protocol" in text
    assert "learned: false alarms on healthy runs: 0.2000, at most 0.05 is asked for" in text


def test_a_report_of_one_policy_alone(rows):
    text = markdown(Rows(one for one in rows if one.policy in {"no-op", "learned"}), "the command")
    assert "### Bars missed" in text
    assert "oracle" not in text.split("### Cells")[0].replace("of the oracle's", "")


def test_it_begins_with_what_it_comes_to(rows):
    text = markdown(Rows(changed(rows, "learned", False, 1, accuracy=0.4)), "tamiyo bench faults")
    assert text.startswith("# Does it work?\n\n`tamiyo bench faults` makes this page.")
    assert (
        "Of 5 live runs with a fault 5 were harmed by it; 10 healthy ones were run besides." in text
    )
    assert "without a restart: oracle 1.00 (.57 … 1.00), learned .80 (.38 … .96)." in text


def test_every_run_that_was_not_repaired_is_told_with_what_was_done(rows, act):
    undone = act(outcome="rolled_back", verified=True)
    lost = changed(rows, "learned", False, 3, accuracy=0.41, acts=(undone,))
    text = markdown(Rows(changed(lost, "learned", False, 1, acts=())), "the command")
    done = "reinitialize, rolled back (2); nothing (1)"
    assert f"| 3 of 5 | {done} | 0.950 | 0.400 | 0.410 | 0.950 |" in text
    assert "did not repair" not in markdown(Rows(rows), "the command")


def test_as_html_it_is_one_file_with_plots(rows):
    page = html(Rows(rows), "tamiyo bench faults --only '<b>'")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert not re.search(r"<script|src=|href=|@import|url\(", page)
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 3
    for figure in figures:
        ElementTree.fromstring(figure)  # noqa: S314 - our own output
    assert "F5: held-out accuracy, % of the run" in page
    for name in ("clean", "untouched", "oracle", "learned"):
        assert f">{name}</span>" in page
