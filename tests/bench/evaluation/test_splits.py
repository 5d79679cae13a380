"""Splits are disjoint, and the test data are never trained on."""

import itertools

import pytest

from tamiyo.bench.evaluation.splits import SEEDS, SPLITS, find_splits
from tamiyo.envs.training.data import HELD_OUT_DATA, TRAINING_DATA


def test_no_two_splits_share_a_seed():
    ranges = [(split.seed(0), split.seed(SEEDS - 1)) for split in SPLITS.values()]
    for (low, high), (other, _) in itertools.pairwise(sorted(ranges)):
        assert low <= high < other


@pytest.mark.parametrize("index", [-1, SEEDS])
def test_a_seed_of_another_split_is_refused(index):
    with pytest.raises(ValueError, match="a split has the seeds"):
        SPLITS["validation"].seed(index)


def test_evaluation_goes_deeper_than_training_and_test_data_are_new():
    trained = SPLITS["train"].config
    assert trained.max_hidden == 8
    assert set(trained.data) == set(TRAINING_DATA) == set(SPLITS["validation"].config.data)
    tests = [SPLITS[f"test:{name}"].config for name in HELD_OUT_DATA]
    assert {config.data for config in tests} == {(name,) for name in HELD_OUT_DATA}
    assert not set(HELD_OUT_DATA) & set(trained.data)
    assert all(config.max_hidden == 11 for config in (*tests, SPLITS["validation"].config))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("validation", ["validation"]),
        ("test", [f"test:{name}" for name in HELD_OUT_DATA]),
        ("test:wine, validation,test:wine", ["test:wine", "validation"]),
        ("all", ["validation", *(f"test:{name}" for name in HELD_OUT_DATA)]),
    ],
)
def test_splits_are_found_by_name_and_group(asked, found):
    assert [split.name for split in find_splits(asked)] == found


@pytest.mark.parametrize("asked", ["", ",", "tests", "test:digits"])
def test_what_is_unknown_is_refused(asked):
    with pytest.raises(ValueError, match="split"):
        find_splits(asked)
