"""The tools at hand for each job in Python, on the same signals. Each does a part of ours."""

import queue
from collections import deque
from collections.abc import Callable

import numpy as np
from river import anomaly

from reference import PythonIngest
from signals import BATCH, columns, messages

HISTORY = 100
LAYERS = 50


def pydantic_ingest() -> Callable[[], object]:
    """msgpack maps to features: decoded by msgpack, validated by pydantic, aggregated by NumPy."""
    ingest, (message,) = PythonIngest(), messages(1, "maps")
    return lambda: (ingest.ingest([message]), ingest.layers())


def river_filter() -> Callable[[], object]:
    """One `GaussianScorer` per layer, of the same window, learning and scoring every value."""
    scorers = [anomaly.GaussianScorer(window_size=HISTORY) for _ in range(LAYERS)]
    batch = columns(0)
    rows = list(zip(batch["layer_id"].tolist(), batch["health_score"].tolist(), strict=True))

    def work():
        for layer, health in rows:
            scorers[layer].score_one(None, health)
            scorers[layer].learn_one(None, health)

    return work


def numpy_filter() -> Callable[[], object]:
    """A window per layer in one array, all layers judged at once, one value of each at a time."""
    history = np.full((LAYERS, HISTORY), 0.5, np.float32)
    values = columns(0)["health_score"].reshape(-1, LAYERS)
    verdicts = np.empty(values.shape, bool)

    def work():
        for at, value in enumerate(values):
            deviation = history.std(axis=1).clip(1e-6)
            verdicts[at] = np.abs(value - history.mean(axis=1)) > 2 * deviation
            history[:, at % HISTORY] = value
        return verdicts

    return work


def _records() -> list[tuple[float, ...]]:
    return list(zip(*(column.tolist() for column in columns(0).values()), strict=True))


def queue_lane() -> Callable[[], object]:
    """`queue.Queue`: every signal in, and out again."""
    lane, records = queue.Queue(maxsize=BATCH), _records()

    def work():
        for record in records:
            lane.put_nowait(record)
        for _ in records:
            lane.get_nowait()

    return work


def deque_lane() -> Callable[[], object]:
    """`collections.deque` with a bound: every signal in, and out again."""
    lane, records = deque(maxlen=BATCH), _records()

    def work():
        for record in records:
            lane.append(record)
        for _ in records:
            lane.popleft()

    return work


PEERS = {
    "msgpack + pydantic + NumPy, maps to features": (pydantic_ingest, "face_maps"),
    "river GaussianScorer": (river_filter, "filter"),
    "NumPy anomaly filter": (numpy_filter, "filter"),
    "queue.Queue": (queue_lane, "lanes"),
    "collections.deque": (deque_lane, "lanes"),
}
"""What makes a peer's work on one batch, and which of our figures it stands beside."""
