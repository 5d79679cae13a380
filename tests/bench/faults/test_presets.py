"""Presets hold cells that exist; the standard one covers every fault, in test cells."""

from tamiyo.bench.faults import FAULTS, all_cells, split_of
from tamiyo.bench.faults.presets import PRESETS


def test_smoke_is_small():
    plan = PRESETS["smoke"]()
    assert len(plan.jobs(["rules", "oracle"])) <= 200
    assert {cell.healthy for cell in plan.cells} == set(plan.healthy_cells)


def test_standard_covers_every_kind_with_test_cells():
    plan = PRESETS["standard"]()
    assert {FAULTS[cell.fault].kind for cell in plan.cells} == {f.kind for f in FAULTS.values()}
    assert {split_of(cell) for cell in (*plan.cells, *plan.healthy_cells)} == {"test"}
    assert 20 <= len(plan.cells) <= 28
    assert len(plan.cells) == len(set(plan.cells))
    assert plan.seeds == 10
    assert plan.healthy_seeds * len(plan.healthy_cells) >= 200


def test_full_is_everything():
    plan = PRESETS["full"]()
    assert set(plan.cells) == set(all_cells())
    assert plan.healthy_seeds * len(plan.healthy_cells) >= 200
