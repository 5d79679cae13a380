"""Nothing that is learned from shares a pair or a fault with what is reported."""

from collections import Counter

import pytest

from tamiyo.bench.faults import FAULTS, all_cells, healthy_cells, split_of
from tamiyo.bench.faults import splits as module
from tamiyo.bench.faults.splits import SPLITS, later, split_of_fault, split_of_pair


def test_no_cell_is_earlier_than_its_pair_or_its_fault():
    for cell in all_cells():
        pair, fault = split_of_pair(cell.architecture, cell.data), split_of_fault(cell.fault)
        assert split_of(cell) == later(pair, fault)
        assert split_of(cell.healthy) == pair


def test_later():
    assert [later(a, b) for a in SPLITS for b in SPLITS] == [
        *SPLITS,
        "validation",
        "validation",
        "test",
        *["test"] * 3,
    ]


def test_one_architecture_and_one_kind_are_for_the_test_alone():
    tested = {cell for cell in all_cells() if split_of(cell) == "test"}
    assert {c for c in all_cells() if c.architecture == "residual_mlp"} <= tested
    assert {c for c in all_cells() if c.fault.startswith("F6:")} <= tested


def test_every_kind_but_one_is_in_training_and_every_kind_in_the_test():
    kinds = {
        split: {cell.fault.split(":")[0] for cell in all_cells() if split_of(cell) == split}
        for split in SPLITS
    }
    everything = {fault.kind for fault in FAULTS.values()}
    assert kinds["test"] == everything
    assert kinds["train"] == everything - {"F6"}


def test_the_tables_name_what_there_is_once():
    pairs = [f"{cell.architecture}|{cell.data}" for cell in healthy_cells()]
    for table, known in ((module._PAIRS, pairs), (module._FAULTS, list(FAULTS))):
        named = Counter(name for names in table.values() for name in names)
        assert set(named) <= set(known)
        assert set(named.values()) == {1}
    unnamed = set(FAULTS) - {name for names in module._FAULTS.values() for name in names}
    assert {FAULTS[name].kind for name in unnamed} == {"F6"}


@pytest.mark.parametrize("split_of_name", [split_of_fault, lambda n: split_of_pair(n, "mine")])
def test_what_is_new_is_split_by_its_name(split_of_name):
    found = Counter(split_of_name(f"new {number}") for number in range(2000))
    assert found["train"] / 2000 == pytest.approx(0.5, abs=0.05)
    assert found["validation"] / 2000 == pytest.approx(0.25, abs=0.05)
    assert split_of_name("new 1") == split_of_name("new 1")
