"""Signals in columns, and messages around them."""

import msgpack
import numpy as np
import pytest

from tamiyo import _core

HEADER = {
    "v": 1,
    "run": "run",
    "producer": "host",
    "incarnation": 1,
    "seq": 0,
    "n": 0,
    "topic": "telemetry.layer.health_signals",
}


def make_signals(n, **columns):
    """`n` plain healthy signals of layer 0, one a second; scalars in `columns` are repeated."""
    defaults = {
        "timestamp": 1.7e9 + np.arange(n),
        "step": np.arange(n),
        "health_score": 0.9,
    }
    given = defaults | columns
    result = {}
    for row in _core.signal_fields():
        absent = np.nan if row.presence == "not_measured" else 0
        value = np.asarray(given.get(row.name, absent), dtype=row.dtype)
        result[row.name] = np.broadcast_to(value, n).copy()
    return result


def make_message(columns, seq=0, **options):
    """An envelope of the run `run`."""
    given = {"run": "run", "producer": "host", "incarnation": 1} | options
    return _core.encode(columns, seq=seq, **given)


def make_raw(body, **header):
    """An envelope packed by an independent msgpack, with whatever in it."""
    return msgpack.packb(HEADER | header | {"body": body})


@pytest.fixture
def signals():
    return make_signals


@pytest.fixture
def message():
    return make_message


@pytest.fixture
def raw():
    return make_raw


@pytest.fixture
def balanced():
    """Checks that every signal is accounted for, and returns the total."""

    def check(ingest):
        books = ingest.accounting()
        for account in [*books["producers"].values(), books["total"]]:
            parts = ("held", "drained", "thinned", "overwritten", "lost")
            assert account["sent"] == sum(account[part] for part in parts) + sum(
                account["refused"].values()
            )
        return books["total"]

    return check
