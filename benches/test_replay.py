"""Drawing 64 segments and setting their priorities, beside cpprb in the same run.

Both draw by priority with β = 0.4, correct by weights, and raise 64 errors to the power of 0.6.
"""

import time

import numpy as np
import pytest

from random_segments import random_segment, random_structure
from tamiyo._core import SumTree
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.segment_batch import stack

SIZES = (50_000, 1_000_000)
BATCH = 64
ALPHA, EPSILON, BETA = 0.6, 1e-3, 0.4
BAR = 2.0

cpprb = pytest.importorskip("cpprb")


def microseconds(*works, calls=500, rounds=20):
    """CPU time of one call of each, of its fastest round; the rounds take turns."""
    fastest = np.full(len(works), np.inf)
    for _ in range(rounds):
        for at, work in enumerate(works):
            started = time.thread_time()
            for _ in range(calls):
                work()
            fastest[at] = min(fastest[at], (time.thread_time() - started) / calls)
    return fastest * 1e6


def report(capsys, name, ours, theirs):
    with capsys.disabled():
        print(f"\n{name}: {ours:.1f} us, cpprb {theirs:.1f} us, {theirs / ours:.2f} times as fast")


def cycle_of_cpprb(columns, priorities):
    """Draw and update in cpprb's buffer, filled with columns of one row per leaf."""
    shapes = {n: {"shape": c.shape[1:], "dtype": c.dtype} for n, c in columns.items()}
    buffer = cpprb.PrioritizedReplayBuffer(len(priorities), shapes, alpha=ALPHA, eps=EPSILON)
    buffer.add(**columns, priorities=priorities)
    errors = np.random.default_rng(1).random(BATCH)

    def cycle():
        sample = buffer.sample(BATCH, beta=BETA)
        buffer.update_priorities(sample["indexes"], errors)

    return cycle


@pytest.mark.parametrize("leaves", SIZES)
def test_the_tree_alone(capsys, leaves):
    """The arithmetic of draws, weights and priorities; cpprb carries one number per leaf."""
    rng = np.random.default_rng(0)
    priorities = rng.random(leaves)
    tree = SumTree(leaves)
    tree.set(np.arange(leaves), (priorities + EPSILON) ** ALPHA)
    errors = rng.random(BATCH)

    def cycle():
        indices, drawn = tree.sample(rng.random(BATCH))
        weights = (tree.least_positive / drawn) ** BETA
        tree.set(indices, np.power(errors + EPSILON, ALPHA))
        return weights

    reference = cycle_of_cpprb({"number": np.zeros((leaves, 1), np.float32)}, priorities)
    ours, theirs = microseconds(cycle, reference)
    report(capsys, f"tree of {leaves:,} leaves", ours, theirs)
    assert theirs / ours >= BAR


def test_with_contents(capsys):
    """Segments of one decision on graphs of 3 layers, of which cpprb carries the same columns."""
    rng = np.random.default_rng(0)
    structure = random_structure(rng)
    leaves = SIZES[0]
    # A thousand different ones, each in fifty places.
    different = [random_segment(rng, 1, structure) for _ in range(1000)]
    memory = PrioritizedReplay(leaves, beta=BETA)
    priorities = rng.random(leaves)
    for at in range(leaves):
        memory.add_segment(different[at % 1000], float(priorities[at]))
    errors = rng.random(BATCH)

    def by_reference():
        sample = memory.sample_batch(BATCH)
        memory.update_priorities(sample.indices, errors)

    def stacked():
        sample = memory.sample_batch(BATCH)
        stack(sample.segments)
        memory.update_priorities(sample.indices, errors)

    rows = [dict(segment.columns()) | dict(segment.observations.columns()) for segment in different]
    columns = {name: np.stack([row[name] for row in rows * (leaves // 1000)]) for name in rows[0]}
    reference = cycle_of_cpprb(columns, priorities)
    referred, copied, theirs = microseconds(by_reference, stacked, reference, calls=100)
    report(capsys, "segments by reference", referred, theirs)
    report(capsys, "segments stacked into padded tensors", copied, theirs)
    assert theirs / referred >= BAR
