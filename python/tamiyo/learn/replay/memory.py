"""Prioritised replay of segments, with a bound on transitions, on memory and on age."""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo._core import SumTree
from tamiyo.learn.replay.pool import StructurePool
from tamiyo.learn.segments import Segment

__all__ = ["PrioritizedMemory", "ReplaySample"]

EMPTY = -1
"""Serial number of a slot without a segment."""


@dataclass(frozen=True, eq=False, slots=True)
class ReplaySample:
    """K segments that were drawn together."""

    segments: tuple[Segment, ...]
    indices: npt.NDArray[np.int64]
    """[K]: what `update_priorities` knows them by."""
    weights: npt.NDArray[np.float64]
    """[K]: corrections in (0, 1] for having been drawn by priority."""


class PrioritizedMemory:
    """Segments, drawn in proportion to their priority (Schaul et al. 2016, arXiv:1511.05952).

    The priority is `(error + epsilon)^alpha`, where the error is the mean |advantage| of a
    segment's decisions; a segment without one gets the largest priority in the memory. A draw is
    corrected by `(N P)^-β` over the largest such weight in the memory, with β going to 1.

    The oldest segments leave when the decisions exceed `capacity` or the arrays `max_bytes`, and
    those of a policy that is more than `max_age` versions old leave in any case. Beside the arrays
    there are about 3 kB of Python objects per segment and 20 bytes per slot of the tree.

    Safe to call from several threads.

    Args:
        capacity: Most decisions.
        alpha: How much the priorities count; 0 draws uniformly.
        epsilon: Added to every error, so that none becomes impossible to draw.
        beta: β at the start.
        max_age: Policy versions.
        max_bytes: Most memory for the segments' arrays.
        seed: Of the draws.

    Raises:
        ValueError: a setting that makes no sense.
    """

    def __init__(
        self,
        capacity: int = 50_000,
        *,
        alpha: float = 0.6,
        epsilon: float = 1e-3,
        beta: float = 0.4,
        max_age: int = 8,
        max_bytes: int = 2**30,
        seed: int = 0,
    ) -> None:
        if not (0 <= alpha <= 1 and 0 <= beta <= 1 and 0 < epsilon < np.inf):
            raise ValueError("alpha and beta must be in [0, 1], and epsilon positive")
        if max_age < 0 or max_bytes < 1:
            raise ValueError("max_age must not be negative, and max_bytes at least 1")
        self.capacity = capacity
        self.alpha = alpha
        self.epsilon = epsilon
        self.initial_beta = self.beta = beta
        self.max_age = max_age
        self.max_bytes = max_bytes
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._lock = threading.RLock()
        self._clear()

    def _clear(self) -> None:
        self._tree = SumTree(self.capacity)
        self._serials = np.full(self.capacity, EMPTY, np.int64)
        """By slot: segments are numbered as they come, and the slots are a ring."""
        self._segments = np.full(self.capacity, None, np.object_)
        """By slot."""
        self._count = 0
        self._oldest = 0
        """No segment held has a smaller number."""
        self._pool = StructurePool()
        self._next_serial = 0
        self._segment_bytes = 0
        self.transitions = 0
        """Number of decisions held."""
        self.policy_version = 0
        """Newest version of the policy that was seen or announced."""

    def __len__(self) -> int:
        """Number of segments held."""
        return self._count

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments held, oldest first."""
        with self._lock:
            return tuple(self._segments[self._slots(self._held())])

    @property
    def priorities(self) -> npt.NDArray[np.float64]:
        """[S], those of `segments`."""
        with self._lock:
            return self._tree.get(self._slots(self._held()))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays of all segments and structures, at most `max_bytes`."""
        return self._segment_bytes + self._pool.nbytes

    @property
    def structures(self) -> int:
        """Number of different graph structures held, each once."""
        return len(self._pool)

    def anneal(self, progress: float) -> None:
        """Set β for a share of the training that is done: linear, and 1 at the end.

        Raises:
            ValueError: a share outside [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be in [0, 1], not {progress}")
        # This form is exactly 1 at the end; the start plus the rest need not be.
        self.beta = self.initial_beta * (1 - progress) + progress

    def advance(self, policy_version: int) -> int:
        """Announce a version of the policy; an older one than before changes nothing.

        Returns:
            How many segments became too old and left.
        """
        with self._lock:
            if policy_version <= self.policy_version:
                return 0
            self.policy_version = policy_version
            oldest = policy_version - self.max_age
            before = self._count
            for serial in self._held().tolist():
                if self._segments[serial % self.capacity].policy_version < oldest:
                    self._evict(serial)
            return before - self._count

    def add_segment(self, segment: Segment, error: float | None = None) -> bool:
        """Keep a segment.

        Args:
            segment: A newer policy version than before is announced by it, as by `advance`.
            error: Mean |advantage|, for its priority; without one it gets the largest there is.

        Returns:
            Whether it was kept; it is not if its policy is too old.

        Raises:
            ValueError: an error that is negative or not finite, or a segment that is larger than
                the whole memory.
        """
        with self._lock:
            priority = self._tree.largest or 1.0
            if error is not None:
                priority = float(self._priorities(np.array([error]))[0])
            size = segment.nbytes + sum(block.structure.nbytes for block in segment.blocks)
            if len(segment) > self.capacity or size > self.max_bytes:
                raise ValueError(f"a segment of {size} bytes is larger than the whole memory")
            self.advance(segment.policy_version)
            if segment.policy_version < self.policy_version - self.max_age:
                return False
            self._make_room(segment)
            serial, self._next_serial = self._next_serial, self._next_serial + 1
            self._tree.set(np.array([serial % self.capacity]), np.array([priority]))
            self._keep(serial, segment)
            return True

    def sample_batch(self, size: int) -> ReplaySample:
        """Draw segments by priority, stratified, with replacement.

        Args:
            size: Number of segments K.

        Raises:
            ValueError: the memory is empty.
        """
        with self._lock:
            slots, priorities = self._tree.sample(self._generator.random(size))
            indices = self._serials[slots]
            segments = tuple(self._segments[slots])
            # (N P)^-β over its largest value: N and the total cancel out.
            weights = (self._tree.least_positive / priorities) ** self.beta
        return ReplaySample(segments, indices, weights)

    def update_priorities(
        self, indices: npt.NDArray[np.int64], magnitudes: npt.NDArray[np.floating]
    ) -> int:
        """Set the priorities of drawn segments.

        Args:
            indices: [K], of a `ReplaySample`.
            magnitudes: [K], their mean |advantage|; of a repeated index the last one counts.

        Returns:
            How many of them were still in the memory.

        Raises:
            ValueError: an error that is negative or not finite, or other than one per index.
        """
        if indices.shape != magnitudes.shape or (indices < 0).any():
            raise ValueError("one magnitude for each index of a sample is needed")
        priorities = self._priorities(magnitudes)
        with self._lock:
            slots = self._slots(indices)
            held = self._serials[slots] == indices
            self._tree.set(slots[held], priorities[held])
        return int(held.sum())

    def _priorities(self, errors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        sizes: npt.NDArray[np.float64] = np.asarray(errors, np.float64)
        if not (np.isfinite(sizes) & (sizes >= 0)).all():
            raise ValueError("an error must be finite and not negative")
        return np.power(sizes + self.epsilon, self.alpha)

    def _slots(self, serials: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Leaves of the tree: a ring, in the order in which segments come."""
        return serials % self.capacity

    def _held(self) -> npt.NDArray[np.int64]:
        """Serial numbers of all segments held, oldest first."""
        return np.sort(self._serials[self._serials != EMPTY])

    def _make_room(self, segment: Segment) -> None:
        most = self.max_bytes - segment.nbytes
        while self._count and (
            self.transitions + len(segment) > self.capacity
            or self.nbytes + self._pool.extra_bytes(segment) > most
            # Those that left out of turn, for their age, left gaps: the ring may be full earlier.
            or self._serials[self._next_serial % self.capacity] != EMPTY
        ):
            while self._serials[self._oldest % self.capacity] != self._oldest:
                self._oldest += 1
            self._evict(self._oldest)

    def _keep(self, serial: int, segment: Segment) -> None:
        segment = self._pool.take(segment)
        slot = serial % self.capacity
        self._segments[slot] = segment
        self._serials[slot] = serial
        self._count += 1
        self.transitions += len(segment)
        self._segment_bytes += segment.nbytes

    def _replace(
        self,
        segments: list[Segment],
        serials: npt.NDArray[np.int64],
        priorities: npt.NDArray[np.float64],
        next_serial: int,
    ) -> None:
        """Hold these segments, oldest first, and nothing else."""
        if len(segments) != len(serials):
            raise ValueError(f"{len(serials)} numbers for {len(segments)} segments")
        tree = SumTree(self.capacity)
        tree.set(self._slots(serials), priorities)
        self._clear()
        for serial, segment in zip(serials.tolist(), segments, strict=True):
            self._keep(serial, segment)
        self._tree = tree
        self._next_serial = next_serial
        self._oldest = int(serials.min(initial=next_serial))

    def _evict(self, serial: int) -> None:
        slot = serial % self.capacity
        segment = self._segments[slot]
        self._segments[slot] = None
        self._serials[slot] = EMPTY
        self._count -= 1
        self._tree.set(np.array([slot]), np.zeros(1))
        self.transitions -= len(segment)
        self._segment_bytes -= segment.nbytes
        self._pool.release(segment)
