import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamiyo import _core

ENCODINGS = ("packed", "columns", "maps")


def legal_columns(draw):
    n = draw(st.integers(0, 12))
    columns = {}
    for row in _core.signal_fields():
        dtype = np.dtype(row.dtype)
        if dtype.kind == "u":
            values = st.integers(int(row.low), int(row.high))
        else:
            width = dtype.itemsize * 8
            values = st.floats(row.low, row.high, width=width, allow_nan=False)
            if row.presence == "not_measured":
                values |= st.just(np.nan)
        columns[row.name] = draw(hnp.arrays(dtype, n, elements=values))
    columns["layer_id"] %= 7
    columns["seed_id"] %= 3
    return columns


@given(st.composite(legal_columns)())
def test_every_encoding_comes_back_bit_for_bit(columns):
    n = len(columns["layer_id"])
    for encoding in ENCODINGS:
        ingest = _core.Ingest(keep_every=1)
        message = _core.encode(
            columns, run="r", producer="p", incarnation=0, seq=5, encoding=encoding
        )
        assert ingest.ingest([message]) == n
        # Draining keeps the order within a lane; layers, steps and all else identify the rows.
        drained = ingest.drain(n)
        order = [
            np.lexsort([c[row.name] for row in _core.signal_fields()]) for c in (columns, drained)
        ]
        for name, column in columns.items():
            assert drained[name].dtype == column.dtype
            np.testing.assert_array_equal(drained[name][order[1]], column[order[0]])


def test_the_envelope_is_plain_msgpack(signals, message):
    columns = signals(3, layer_id=[4, 5, 6], flags=[0, 1, 10])
    envelope = msgpack.unpackb(message(columns, seq=7, encoding="maps"))
    rows = envelope.pop("body")
    assert envelope == {
        "v": _core.SCHEMA_VERSION,
        "run": "run",
        "producer": "host",
        "incarnation": 1,
        "seq": 7,
        "n": 3,
        "topic": "telemetry.layer.health_signals",
    }
    assert [row["layer_id"] for row in rows] == [4, 5, 6]
    assert "saturation" not in rows[0]
    assert rows[1]["is_ready_for_transition"] is True
    assert rows[2].keys() >= {"nonfinite_activation", "nonfinite_weight"}


def test_absent_columns_take_their_default(signals, message):
    full = signals(4)
    required = [row.name for row in _core.signal_fields() if row.presence == "required"]
    sparse = {name: full[name] for name in [*required, "health_score"]}
    assert message(sparse) == message(full)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_layout_of_the_arrays_does_not_matter(signals, message, encoding):
    columns = signals(6, layer_id=np.arange(6), cache_hit_rate=np.linspace(0, 1, 6))
    expected = message(columns, encoding=encoding)
    strided = {name: np.repeat(column, 2)[::2] for name, column in columns.items()}
    reverse = {name: column[::-1].copy()[::-1] for name, column in columns.items()}
    packed = np.rec.fromarrays(list(columns.values()), names=list(columns))
    unaligned = {name: packed[name] for name in columns}
    for other in (strided, reverse, unaligned):
        assert message(other, encoding=encoding) == expected
    for column in columns.values():
        column.flags.writeable = False
    assert message(columns, encoding=encoding) == expected


def test_what_does_not_fit_the_table_is_refused(signals, message):
    columns = signals(3)
    with pytest.raises(ValueError, match="unknown column: colour"):
        message(columns | {"colour": columns["step"]})
    with pytest.raises(ValueError, match="missing column: step"):
        message({name: column for name, column in columns.items() if name != "step"})
    with pytest.raises(ValueError, match="saturation has 2 rows"):
        message(columns | {"saturation": columns["saturation"][:2]})
    with pytest.raises(ValueError, match="encoding"):
        message(columns, encoding="json")
    for wrong in (
        columns["step"].astype("i8"),
        columns["step"].astype(">u8"),
        columns["step"].reshape(3, 1),
        [0, 1, 2],
        None,
    ):
        with pytest.raises(TypeError, match="step must be a one-dimensional array of uint64"):
            message(columns | {"step": wrong})
