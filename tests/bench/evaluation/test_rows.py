"""What rows say of themselves, against loops over runs and decisions."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bench.evaluation.rows import KINDS, NEVER, Rows, accepted
from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.faults import CURES, FaultKind
from tamiyo.graph.schema import ACTIONS

RESTORE, REINITIALIZE, WIDEN = (
    ACTIONS.index(action)
    for action in (
        AdaptationType.RESTORE,
        AdaptationType.REINITIALIZE,
        AdaptationType.WIDEN,
    )
)
UPSTREAM = KINDS.index(FaultKind.EXPLODING_UPSTREAM)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cure_is_accepted_and_restoring_only_where_it_is_one(kind):
    pairs = accepted(kind, 2)
    assert {ACTIONS[action] for _, action in pairs} == set(CURES[kind])
    assert ((-1, RESTORE) in pairs) == (AdaptationType.RESTORE in CURES[kind])
    assert all(target == (-1 if action == RESTORE else 4) for target, action in pairs)
    assert all(target == -1 for target, _ in accepted(kind, -1))


def one_run(make_rows, actions, *, struck=1, fault=UPSTREAM, layer=2):
    """A run of four decisions; `actions` are (decision, target, type)."""
    acted, target, kind = np.zeros((1, 4), bool), np.zeros((1, 4), int), np.zeros((1, 4), int)
    for moment, where, what in actions:
        acted[0, moment], target[0, moment], kind[0, moment] = True, where, what
    return make_rows(
        1,
        acted=acted,
        target=target,
        type=kind,
        fault=[fault],
        layer=[layer],
        struck=[struck],
        curable=[fault != 0],
    )


@pytest.mark.parametrize(
    ("actions", "right"),
    [
        ([(1, 4, REINITIALIZE)], True),
        ([(3, -1, RESTORE)], True),
        ([], False),
        ([(0, 4, REINITIALIZE)], False),  # the fault has not happened yet
        ([(1, 2, REINITIALIZE)], False),  # another layer
        ([(1, 4, WIDEN)], False),  # another type
        ([(1, 4, WIDEN), (2, 4, REINITIALIZE)], False),  # only the first one counts
    ],
)
def test_right_is_a_first_action_that_cures(make_rows, actions, right):
    assert one_run(make_rows, actions).right.tolist() == [right]


def test_nothing_is_right_in_a_healthy_run(make_rows):
    rows = one_run(make_rows, [(1, 4, REINITIALIZE)], fault=0, layer=-1, struck=NEVER)
    assert not rows.right.any()
    assert not rows.faulty.any()


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_decisions_are_open_up_to_the_first_action(make_rows, acted):
    rows = make_rows(len(acted), 5, acted=np.array(acted))
    for run, series in enumerate(acted):
        first = series.index(True) if True in series else NEVER
        assert rows.first[run] == first
        expected = [first in (NEVER, t) or t < first for t in range(5)]
        assert rows.open[run].tolist() == expected


def test_parts_are_put_together_in_order(make_rows):
    whole = Rows.concatenate([make_rows(2, seed=[0, 0]), make_rows(1, seed=[1])])
    assert whole.seed.tolist() == [0, 0, 1]
    assert len(whole) == 3
    assert whole.decisions == 4


def test_records_are_json_and_say_what_was_done(make_rows):
    rows = one_run(make_rows, [(2, -1, RESTORE), (3, 4, WIDEN)])
    [record] = rows.records("rules")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["actions"] == [[2, -1, "restore"], [3, 4, "widen"]]
    assert record["cohort"] == "rules"
    assert record["fault"] == "exploding_upstream"
    assert record["right"] is True
    assert record["confidence"] is None
