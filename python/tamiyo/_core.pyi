"""The ingest core: decoding, filtering, buffering and aggregating health signals.

Every call over about 10 microseconds releases the GIL, and no call ever makes a Python object
per signal. Columns are NumPy arrays that own their memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "DEBUG_BUILD",
    "RECORD_BYTES",
    "SCHEMA_VERSION",
    "Field",
    "Filter",
    "Ingest",
    "SumTree",
    "encode",
    "layer_fields",
    "signal_fields",
    "window_features",
]

DEBUG_BUILD: bool
"""Whether the core was built without optimisation."""
SCHEMA_VERSION: int
"""Version of the telemetry envelope that this build reads and writes."""
RECORD_BYTES: int
"""Size of one packed record."""

@final
class Field:
    """One row of the field table."""

    name: str
    dtype: str
    """NumPy type of the column, for example `float32`."""
    unit: str
    low: float
    high: float
    presence: str
    """`required`, `zero` (absent means 0) or `not_measured` (absent means NaN)."""
    doc: str

def signal_fields() -> tuple[Field, ...]:
    """The field table of a health signal, in wire order."""

def layer_fields() -> tuple[Field, ...]:
    """The table of per-layer aggregates, the columns that `Ingest.layers` returns."""

def encode(
    columns: Mapping[str, npt.NDArray[Any]],
    *,
    run: str,
    producer: str,
    incarnation: int,
    seq: int,
    topic: str = "telemetry.layer.health_signals",
    encoding: str = "packed",
) -> bytes:
    """One telemetry envelope around `columns`.

    `encoding` is `packed`, `columns` or `maps`. Absent columns take their default; `seq` is the
    index of the first signal among all that this incarnation of the producer has sent. Values are
    written as they are: the receiver checks their ranges and refuses the batch.

    Raises:
        ValueError: columns of unequal length, an unknown column or encoding, or a required
            column that is missing.
        TypeError: a column that is not a one-dimensional array of the dtype that the field table
            says, in native byte order.
    """

def window_features(
    columns: Mapping[str, npt.NDArray[Any]], *, window: int = 100
) -> dict[str, npt.NDArray[Any]]:
    """Per-layer aggregates of signals in one pass (the columns of `layer_fields`).

    Uses each layer's last `window` signals in their order here; layers come out in ascending id.

    Raises:
        ValueError, TypeError: as `encode`, or a `window` below 1.
    """

@final
class Filter:
    """Decides which signals are worth keeping one by one; the rest is thinned.

    Signals with errors, ready for a transition or with an anomalous health score are kept; of all
    others of a key (layer, seed) the first and then exactly every `keep_every`-th. A score is
    anomalous when it is more than `anomaly_threshold` population standard deviations (at least
    1e-6) away from the mean of the key's up to `history` previous scores, at least
    `minimum_history` of them. NaN is not anomalous and does not enter the history.

    Raises:
        ValueError: a setting that makes no sense.
    """

    def __new__(
        cls,
        anomaly_threshold: float = 2.0,
        *,
        history: int = 100,
        minimum_history: int = 10,
        keep_every: int = 10,
        max_keys: int = 65_536,
    ) -> Filter: ...
    def should_process(
        self,
        layer_id: int,
        seed_id: int,
        health_score: float,
        error_count: int = 0,
        is_ready_for_transition: bool = False,
    ) -> bool:
        """Whether to keep this signal. Each call is one signal of the key's history.

        Raises:
            ValueError: the key is new and the table is full, or the score is out of range.
        """

    def apply(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
        """The same for a batch, in order: `True` where a signal is kept.

        Only `layer_id` must be there. A batch is judged whole or not at all.

        Raises:
            ValueError, TypeError: as `should_process` and `encode`.
        """

@final
class Ingest:
    """Bytes in, columns out: decode, filter, prioritise, buffer, aggregate, account.

    Safe to call from any number of threads. Nothing a sender writes makes `ingest` raise; what is
    wrong with a message is counted by reason.

    A batch is accepted whole or refused whole, also where its new (layer, seed) keys do not all
    fit under `max_keys`; layers declared with `declare` are beside that bound, with up to 16 seeds
    each. `capacity` signals are held: a fifth in the lane of urgent ones, the rest in the other.

    Raises:
        ValueError: a setting that makes no sense.
    """

    def __new__(
        cls,
        run: str | None = None,
        *,
        capacity: int = 50_000,
        anomaly_threshold: float = 2.0,
        keep_every: int = 10,
        window: int = 100,
        max_keys: int = 65_536,
        max_message_bytes: int = 4_194_304,
    ) -> Ingest: ...
    @property
    def run(self) -> str | None:
        """The run whose signals are accepted.

        Without one given or adopted, that of the first message with a valid batch.
        """

    def adopt(self, run: str) -> bool:
        """Bind to `run` unless bound already; returns whether `run` is the one accepted."""

    def ingest(self, messages: Sequence[bytes]) -> int:
        """Take telemetry envelopes; returns how many signals were accepted (kept or thinned)."""

    def declare(self, layers: npt.NDArray[np.uint32]) -> None:
        """Layers of a declared topology: always admitted, whatever the bound on keys."""

    def recent(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The newest `count` signals of both lanes in time order, without draining.

        Urgent signals come first when there are more than `count`.
        """

    def for_layer(self, layer_id: int, count: int) -> dict[str, npt.NDArray[Any]]:
        """The newest `count` signals of one layer in time order, without draining."""

    def drain(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """Remove and return up to `count` signals, urgent ones first, then oldest first."""

    def layers(self) -> dict[str, npt.NDArray[Any]]:
        """Per-layer aggregates over the window of every valid signal (see `layer_fields`).

        Layers come out in ascending id. The latest signal is the one that arrived last.
        """

    def accounting(self) -> dict[str, Any]:
        """Where every signal went.

        `producers` maps `name/incarnation` to `sent`, `held`, `drained`, `refused` (by reason),
        `thinned`, `overwritten` and `lost`, which sum up exactly to `sent`, and `duplicated`,
        which is outside the sum. `total` adds them up. `unreadable` counts, by reason, messages
        whose header could not be read or belongs to another run, so that their signals belong to
        no producer here. What a producer sent last and nobody received is unknowable and not in
        `sent`.
        """

    def refusals(self) -> list[tuple[str, bytes]]:
        """A bounded sample of the latest refused messages: the reason and their first bytes."""

@final
class SumTree:
    """Priorities of a fixed number of leaves, all 0 at the start: draws in proportion to them.

    A node is always computed from its children, so after any number of changes the tree equals,
    bit for bit, one that was built from `leaves`. Arrays are read where they are: nobody else may
    write to them during a call. Safe to call from any number of threads.

    Raises:
        ValueError: a capacity below 1.
    """

    def __new__(cls, capacity: int) -> SumTree: ...
    @property
    def capacity(self) -> int:
        """Number of leaves."""

    @property
    def total(self) -> float:
        """Sum of all priorities."""

    @property
    def least_positive(self) -> float:
        """Smallest priority above 0; infinite where there is none."""

    @property
    def largest(self) -> float:
        """Largest priority."""

    def leaves(self) -> npt.NDArray[np.float64]:
        """Every priority, by index."""

    def get(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The priorities of these leaves.

        Raises:
            IndexError: a leaf that does not exist.
            TypeError: not a one-dimensional array of int64.
        """

    def set(self, indices: npt.NDArray[np.int64], priorities: npt.NDArray[np.float64]) -> None:
        """Change these leaves, all of them or none; of a repeated index the last one counts.

        Raises:
            IndexError: a leaf that does not exist.
            ValueError: other than one priority per index, or a priority that is NaN, negative,
                infinite or so large that the total could be.
            TypeError: not one-dimensional arrays of int64 and float64.
        """

    def sample(
        self, uniforms: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """A leaf for each uniform number, and its priority, which is never 0.

        Stratified: of k numbers the i-th draws from the i-th of k equal shares of the total.

        Raises:
            ValueError: a number outside [0, 1), or every priority is 0.
            TypeError: not a one-dimensional array of float64.
        """
