"""Batches: columns and records are two views of the same signals."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.contracts import FIELDS, MEASUREMENTS, Flag, HealthSignal, SignalBatch

f32 = st.floats(0, 1, width=32)
signals = st.builds(
    HealthSignal,
    layer_id=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**64 - 1),
    timestamp=st.floats(0, 2e9),
    error_count=st.integers(0, 9),
    flags=st.integers(0, 15),
    **dict.fromkeys(MEASUREMENTS, f32),
)


@given(st.lists(signals, max_size=8))
def test_records_survive_the_way_through_columns(rows):
    batch = SignalBatch.from_signals(rows)
    assert list(batch) == rows
    assert len(batch) == len(rows)


@given(st.lists(signals, max_size=8), st.slices(8))
def test_slicing_columns_is_slicing_records(rows, part):
    assert list(SignalBatch.from_signals(rows)[part]) == rows[part]


@given(st.lists(signals, min_size=1, max_size=8))
def test_a_mask_selects_records(rows):
    batch = SignalBatch.from_signals(rows)
    mask = batch["error_count"] > 3
    assert list(batch[mask]) == [row for row in rows if row.error_count > 3]
    assert batch[-1] == rows[-1]


def test_a_record_has_exactly_the_fields_of_the_table_with_their_defaults():
    required = {f.name for f in FIELDS if f.presence == "required"} - {
        "active_seeds",
        "total_seeds",
    }
    signal = HealthSignal(**dict.fromkeys(required, 1))
    assert {*HealthSignal.__dataclass_fields__} == {f.name for f in FIELDS}
    assert all(math.isnan(getattr(signal, name)) for name in MEASUREMENTS)


def test_columns_have_the_types_of_the_table():
    batch = SignalBatch.from_signals([])
    assert {f.name: batch[f.name].dtype for f in FIELDS} == {
        f.name: np.dtype(f.dtype) for f in FIELDS
    }


def test_flags_in_words():
    ready = HealthSignal(layer_id=0, epoch=0, step=0, timestamp=0, flags=Flag.READY_FOR_TRANSITION)
    broken = HealthSignal(layer_id=0, epoch=0, step=0, timestamp=0, flags=Flag.NONFINITE_GRADIENT)
    assert (ready.is_ready_for_transition, ready.is_nonfinite) == (True, False)
    assert (broken.is_ready_for_transition, broken.is_nonfinite) == (False, True)
