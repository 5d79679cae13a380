"""What the ranks tell each other arrives as it was."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.host.orders import Ballot, Order, OrderKind, packed_activity, unpacked_activity

orders = st.builds(
    Order,
    kind=st.sampled_from(OrderKind),
    step=st.integers(0, 2**63),
    decision=st.binary(max_size=50),
    activity=st.dictionaries(st.integers(0, 2**31), st.binary(max_size=16), max_size=4),
    good=st.none() | st.integers(0, 2**63),
    outcome=st.text(max_size=20),
    reason=st.text(max_size=50),
)
ballots = st.builds(Ballot, st.text(max_size=50), st.text(max_size=64), st.text(max_size=64))


@given(orders)
def test_orders_come_back(order):
    assert Order.from_bytes(order.to_bytes()) == order


@given(ballots)
def test_ballots_come_back(ballot):
    assert Ballot.from_bytes(ballot.to_bytes()) == ballot


@pytest.mark.parametrize("word", [b"\xc0", b"\x93\x01\x02\x03"])
def test_what_is_no_map_is_refused(word):
    with pytest.raises(TypeError):
        Order.from_bytes(word)


@given(st.lists(st.floats(0, 1e6, width=32), max_size=20))
def test_activities_keep_every_bit(values):
    units = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(unpacked_activity(packed_activity({3: units}))[3], units)
