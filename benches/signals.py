"""Signals to measure with: 1,000 a message, 50 layers, mostly healthy."""

import numpy as np

from tamiyo import _core
from tamiyo.contracts import FIELDS, MEASUREMENTS

BATCH = 1000
LAYERS = 50


def columns(batch: int, seed: int = 0, layers: int = LAYERS) -> dict[str, np.ndarray]:
    """The columns of message number `batch`."""
    random = np.random.default_rng([seed, batch])
    result = {field.name: np.zeros(BATCH, field.dtype) for field in FIELDS}
    result["layer_id"][:] = np.arange(BATCH) % layers
    result["step"][:] = batch
    result["timestamp"][:] = 1.7e9 + batch * 0.01 + np.arange(BATCH) * 1e-5
    for name in MEASUREMENTS:
        result[name][:] = random.uniform(0.4, 0.9, BATCH)
    return result


def messages(count: int, encoding: str) -> list[bytes]:
    """`count` consecutive messages of one producer."""
    return [
        _core.encode(
            columns(batch),
            run="bench",
            producer="bench",
            incarnation=1,
            seq=batch * BATCH,
            encoding=encoding,
        )
        for batch in range(count)
    ]
