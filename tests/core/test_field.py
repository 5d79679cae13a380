import numpy as np
import pytest

from tamiyo import _core


@pytest.mark.parametrize("table", [_core.signal_fields, _core.layer_fields])
def test_a_table_is_complete(table):
    rows = table()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.dtype in {"uint16", "uint32", "uint64", "float32", "float64"}
        assert row.low <= row.high
        assert row.presence in {"required", "zero", "not_measured"}
        assert row.unit
        assert row.doc.endswith(".")
        assert np.dtype(row.dtype).kind == "f" or row.presence != "not_measured"


def test_records_are_small_and_unpadded():
    size = sum(np.dtype(row.dtype).itemsize for row in _core.signal_fields())
    assert size == _core.RECORD_BYTES <= 96


def test_rows_cannot_be_changed():
    with pytest.raises(AttributeError):
        _core.signal_fields()[0].name = "other"


def test_the_build_is_optimised():
    assert not _core.DEBUG_BUILD
