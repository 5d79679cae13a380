"""Control messages: what goes in comes out, and nothing malformed gets through."""

import math

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationResult,
    AdaptationType,
    ModelTopology,
    Outcome,
    PerformanceMetrics,
    TopologyEdge,
    TopologyNode,
    WireError,
)
from tamiyo.contracts.wire import MAX_MESSAGE_BYTES

probability = st.floats(0, 1)
number = st.floats(allow_nan=False, allow_infinity=False)
step = st.integers(0, 2**40)

decisions = st.builds(
    AdaptationDecision,
    decision_id=st.text(),
    run=st.text(),
    term=step,
    adaptation=st.sampled_from(AdaptationType),
    target=st.lists(st.integers(0, 99), max_size=4).map(tuple),
    parameters=st.dictionaries(st.text(max_size=5), number | st.text(max_size=5), max_size=3),
    issued_at_step=step,
    expires_at_step=step,
    confidence=probability,
    risk=st.none() | probability,
    reason=st.text(),
    value=st.none() | number,
)
results = st.builds(
    AdaptationResult,
    decision_id=st.text(),
    run=st.text(),
    step=step,
    outcome=st.sampled_from(Outcome),
    loss_before=st.none() | number,
    verified=st.none() | st.booleans(),
)
metrics = st.builds(
    PerformanceMetrics, run=st.text(), step=step, timestamp=number, loss=st.none() | number
)


@st.composite
def topologies(draw):
    count = draw(st.integers(0, 6))
    nodes = tuple(
        TopologyNode(layer_id=i, name=f"layer{i}", type="Linear", parameters=draw(step), shape=(i,))
        for i in range(count)
    )
    ends = st.integers(0, max(count - 1, 0))
    edges = draw(st.lists(st.builds(TopologyEdge, source=ends, target=ends), max_size=6))
    return ModelTopology(run="r", nodes=nodes, edges=tuple(edges) if count else ())


messages = st.one_of(decisions, results, metrics, topologies())


@given(messages)
def test_what_goes_in_comes_out(message):
    assert type(message).from_bytes(message.to_bytes()) == message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_valid(payload):
    try:
        PerformanceMetrics.from_bytes(payload)
    except WireError as error:
        assert str(error)


@given(metrics, st.data())
def test_a_cut_message_is_refused(message, data):
    payload = message.to_bytes()
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(WireError):
        PerformanceMetrics.from_bytes(payload[:cut])


GOOD = {"v": 1, "run": "r", "step": 1, "timestamp": 0.0}


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (msgpack.packb({**GOOD, "v": 2}), "unknown version: 2"),
        (msgpack.packb({key: GOOD[key] for key in ("run", "step")}), "unknown version: None"),
        (msgpack.packb({**GOOD, "loss": math.nan}), "non-finite"),
        (msgpack.packb({**GOOD, "loss": -math.inf}), "non-finite"),
        (msgpack.packb({**GOOD, "step": -1}), "PerformanceMetrics.step"),
        (msgpack.packb({**GOOD, "step": "many"}), "PerformanceMetrics.step"),
        (msgpack.packb({"v": 1, "run": "r", "timestamp": 0.0}), "PerformanceMetrics.step"),
        (msgpack.packb({**GOOD, "extra": msgpack.ExtType(4, b"x")}), "extension type 4"),
        (msgpack.packb({**GOOD, "extra": nested(20)}), "nested deeper"),
        (msgpack.packb([1, 2]), "expected a map"),
        (msgpack.packb(GOOD) + b"\x00", "malformed"),
        (b"\x82\xa1v\x01\xa1v\x01", "duplicate key"),
        (b"\x81\x01\x01", "malformed"),
        (b"\xdf\xff\xff\xff\xff", "malformed"),
        (b"\x91" * 2000 + b"\x90", "malformed"),
        (b"\x81\xa1v\xa2\xff\xff", "malformed"),
        (b"\xc1", "malformed"),
        (b"", "malformed"),
        (bytes(MAX_MESSAGE_BYTES + 1), "too large"),
    ],
)
def test_refusals_say_why(payload, reason):
    with pytest.raises(WireError, match=reason):
        PerformanceMetrics.from_bytes(payload)


def test_fields_from_a_newer_peer_are_ignored():
    payload = msgpack.packb({**GOOD, "new_field": {"a": [1, 2]}})
    assert PerformanceMetrics.from_bytes(payload).step == 1
