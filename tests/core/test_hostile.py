"""Nothing that a sender writes may raise, hang, grow the collector or be believed unchecked."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo import _core

ROW = {
    "layer_id": 1,
    "epoch": 0,
    "step": 5,
    "timestamp": 1.7e9,
    "active_seeds": 0,
    "total_seeds": 0,
}


def refused(ingest):
    """How often each reason was counted, of readable and unreadable messages."""
    books = ingest.accounting()
    return books["total"]["refused"] | books["unreadable"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "truncated"),
        (b"\xdf\xff\xff\xff\xff", "truncated"),
        (b"\xdd\xff\xff\xff\xff", "wrong type"),
        (b"\x81\xa1x" + b"\x91" * 1_000_000, "too deep"),
        (b"\x81\xa1x\xdd\xff\xff\xff\xff\xc0", "truncated"),
        (b"\x81\xa1x\xdb\x00\x98\x96\x80" + b"x" * 10_000_000, "too large"),
        (b"\x81\xa1x\xd4\x01\x00", "extension type"),
        (b"\x82\xa1x\x01\xa1x\x01", "duplicate key"),
        (b"\x81\x01\x02", "wrong type"),
        (b"\x81\xa1x\xc1", "wrong type"),
        (b"\xc0", "wrong type"),
        (msgpack.packb({"v": 2}), "unknown version"),
        (msgpack.packb({"v": 1}), "missing field"),
        (msgpack.packb({"v": 1, "producer": "x" * 257}), "too large"),
        (msgpack.packb({"v": 1, "producer": 3}), "wrong type"),
        (msgpack.packb({"v": 1, "seq": -1}), "out of range"),
        (msgpack.packb({f"key{at}": at for at in range(100)}), "too large"),
    ],
)
def test_unreadable_messages_are_counted(message, reason):
    ingest = _core.Ingest()
    assert ingest.ingest([message]) == 0
    assert ingest.accounting()["unreadable"] == {reason: 1}
    ((text, sample),) = ingest.refusals()
    assert text.startswith(reason)
    assert message.startswith(sample)
    assert len(sample) <= 256


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([ROW | {"health_score": float("inf")}], "out of range: health_score, 0"),
        ([ROW, ROW | {"health_score": 1.5}], "out of range: health_score, 1"),
        ([ROW | {"step": 2**63}], "out of range: step, 0"),
        ([ROW | {"layer_id": 2**32}], "out of range: layer_id, 0"),
        ([ROW | {"layer_id": -1}], "out of range: layer_id, 0"),
        ([ROW | {"layer_id": 1.0}], "wrong type: layer_id, 0"),
        ([ROW | {"layer_id": True}], "wrong type: layer_id, 0"),
        ([ROW | {"timestamp": float("nan")}], "NaN where required: timestamp, 0"),
        ([ROW | {"timestamp": 1.7e12}], "out of range: timestamp, 0"),
        ([ROW | {"gradient_norm": 1e308}], "out of range: gradient_norm, 0"),
        ([ROW | {"extra": msgpack.ExtType(1, b"x")}], "extension type: 0"),
        ([ROW | {"extra": [[[[[[[[1]]]]]]]]}], "too deep: 0"),
        ([{"layer_id": 1}], "missing field: epoch, 0"),
        ([ROW, 7], "wrong type: 1"),
        ("text", "wrong type"),
        (b"", "length mismatch"),
        (b"x" * (_core.RECORD_BYTES * 2 + 1), "length mismatch"),
        ({"layer_id": b"1234"}, "length mismatch: layer_id"),
        ({}, "missing field: layer_id"),
        ({"layer_id": 5}, "wrong type: layer_id"),
    ],
)
def test_bad_bodies_are_refused_whole(raw, body, reason):
    n = len(body) if isinstance(body, list) else 2
    ingest = _core.Ingest()
    assert ingest.ingest([raw(body, n=n)]) == 0
    books = ingest.accounting()
    assert books["total"]["refused"] == {reason.split(":")[0]: n}
    assert books["total"]["sent"] == n
    assert ingest.refusals()[0][0] == reason
    assert ingest.layers()["count"].size == 0


def test_unknown_topics_and_wrong_encodings_are_refused(raw):
    ingest = _core.Ingest()
    ingest.ingest([raw([ROW], n=1, topic="telemetry.model.performance_metrics")])
    assert refused(ingest) == {"unknown topic": 1}
    ingest.ingest([raw(b"x" * _core.RECORD_BYTES, n=1, seq=1, topic="telemetry.cache.hit_rates")])
    assert refused(ingest) == {"unknown topic": 1, "wrong type": 1}


def test_keys_may_not_come_twice(raw):
    row = msgpack.packb({"step": 5})
    twice = b"\x87" + msgpack.packb(ROW)[1:] + row[1:]
    empty = raw([], n=1)
    ingest = _core.Ingest()
    ingest.ingest([empty[:-1] + b"\x91" + twice])
    assert ingest.refusals()[0][0] == "duplicate key: step, 0"
    ingest.ingest([b"\x89" + raw([ROW], n=1)[1:] + b"\xa1n\x01"])
    assert ingest.accounting()["unreadable"] == {"duplicate key": 1}


def test_a_newer_sender_may_say_more(raw):
    ingest = _core.Ingest()
    row = ROW | {"colour": {"red": [1, 2.5, None, "x", b"y"]}}
    assert ingest.ingest([raw([row, row], n=2, compression=None, nested={"a": [1]})]) == 2


def test_maps_may_change_their_shape_at_any_time(raw):
    rows = [ROW | {"step": step, "saturation": 0.25} for step in (1, 200, 2, 70_000, 3, 2**40, 4)]
    rows += [dict(reversed(row.items())) for row in rows]
    rows += [row | {"saturation": None, "health_score": 1} for row in rows]
    ingest = _core.Ingest(keep_every=1)
    assert ingest.ingest([raw(rows, n=len(rows))]) == len(rows)
    recent = ingest.recent(len(rows))
    assert recent["step"].tolist() == [row["step"] for row in rows]
    expected = [row["saturation"] or np.nan for row in rows]
    np.testing.assert_array_equal(recent["saturation"], expected)
    rows[17] |= {"saturation": 1.5}
    assert ingest.ingest([raw(rows, n=len(rows), seq=len(rows))]) == 0
    assert ingest.refusals()[0][0] == "out of range: saturation, 17"


@pytest.mark.parametrize("encoding", ["packed", "columns", "maps"])
def test_every_truncation_is_refused(signals, message, balanced, encoding):
    whole = message(signals(3, saturation=0.5), encoding=encoding)
    for end in range(len(whole)):
        ingest = _core.Ingest()
        assert ingest.ingest([whole[:end]]) == 0
        balanced(ingest)
        assert len(refused(ingest)) == 1
    ingest = _core.Ingest()
    assert ingest.ingest([whole + b"\x00"]) == 0
    assert refused(ingest) == {"trailing bytes": 3}


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("encoding", ["packed", "columns", "maps"])
def test_numbers_are_checked_in_every_encoding(signals, message, encoding, value):
    ingest = _core.Ingest()
    columns = signals(9, saturation=[0.5] * 7 + [value, 0.5])
    assert ingest.ingest([message(columns, encoding=encoding)]) == 0
    assert ingest.refusals() == [("out of range: saturation, 7", ingest.refusals()[0][1])]
    columns = signals(9, flags=[0] * 8 + [16])
    if encoding != "maps":  # which has no way to say so
        assert ingest.ingest([message(columns, seq=9, encoding=encoding)]) == 0
        assert ingest.refusals()[1][0] == "out of range: flags, 8"


def test_headers_cannot_inflate_what_was_sent(raw):
    ingest = _core.Ingest()
    ingest.ingest(
        [
            raw(b"", n=2**32),
            raw(b"", n=2**63),
            raw(b"", n=0, seq=2**60),
            raw(b"", n=0, seq=2**64 - 1),
        ]
    )
    assert ingest.accounting()["total"]["sent"] == 0
    assert ingest.accounting()["unreadable"] == {"length mismatch": 2, "out of range": 2}


def test_senders_cannot_grow_the_collector(signals, message):
    ingest = _core.Ingest(max_keys=100, capacity=100)
    for batch in range(50):
        layers = np.arange(batch * 200, batch * 200 + 200)
        ingest.ingest([message(signals(200, layer_id=layers), seq=batch * 200)])
    assert ingest.layers()["layer_id"].size == 0
    for batch in range(50):
        layer = signals(1, layer_id=batch * 1000)
        ingest.ingest([message(layer, producer=str(batch)), b"noise" * batch])
    for batch in range(200):
        ingest.ingest([message(signals(1), producer=f"other{batch % 7}", run=str(batch))])
    assert len(ingest.refusals()) == 64
    assert ingest.layers()["layer_id"].size == 50


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(noise):
    ingest = _core.Ingest()
    assert ingest.ingest([noise]) == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
KEYS = st.sampled_from([*sorted(ROW), "health_score", "flags", "nonfinite_weight", "other"])


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=10).map(lambda row: ROW | row), max_size=4))
def test_whatever_maps_hold_is_legal_or_refused(rows):
    header = {"v": 1, "run": "r", "producer": "p", "incarnation": 1, "seq": 0}
    topic = "telemetry.layer.health_signals"
    message = msgpack.packb(header | {"n": len(rows), "topic": topic, "body": rows})
    ingest = _core.Ingest(keep_every=1)
    assert ingest.ingest([message]) in {0, len(rows)}
    recent = ingest.recent(10)
    for row in _core.signal_fields():
        column = recent[row.name]
        column = column[~np.isnan(column)] if row.presence == "not_measured" else column
        assert ((column >= row.low) & (column <= row.high)).all()
