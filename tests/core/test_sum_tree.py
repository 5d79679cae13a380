"""The sum tree through Python: types, errors, threads; its arithmetic is tested beside it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tamiyo import _core


def filled(priorities):
    tree = _core.SumTree(len(priorities))
    tree.set(np.arange(len(priorities)), np.array(priorities, float))
    return tree


def test_a_new_tree_is_empty():
    tree = _core.SumTree(5)
    assert tree.capacity == 5
    assert tree.total == tree.largest == 0
    assert tree.least_positive == np.inf
    assert tree.leaves().tolist() == [0] * 5


def test_what_is_set_is_read_and_drawn():
    tree = filled([0, 1, 0, 2.5, 0.5])
    assert tree.total == 4
    assert (tree.least_positive, tree.largest) == (0.5, 2.5)
    assert tree.get(np.array([3, 0, 3])).tolist() == [2.5, 0, 2.5]
    indices, priorities = tree.sample(np.array([0.0, 0.0, 0.99, 0.99]))
    assert indices.dtype == np.int64
    assert indices.tolist() == [1, 3, 3, 4]
    assert priorities.tolist() == [1, 2.5, 2.5, 0.5]


def test_of_a_repeated_index_the_last_one_counts():
    tree = _core.SumTree(100)
    tree.set(np.array([7, 99, 7]), np.array([1.0, 2.0, 4.0]))
    assert tree.total == 6
    assert tree.get(np.array([7])) == 4


def test_arrays_may_have_gaps_and_may_be_empty():
    tree = filled(np.arange(20))
    tree.set(np.arange(20)[::2], np.zeros(20)[::2])
    assert tree.leaves().tolist() == [i * (i % 2) for i in range(20)]
    assert tree.get(np.arange(20)[::-1]).tolist() == tree.leaves()[::-1].tolist()
    assert len(tree.sample(np.zeros(0))[0]) == 0


@pytest.mark.parametrize(
    ("indices", "priorities", "error", "text"),
    [
        ([0, 5], [1, 1], IndexError, "index 5 is outside 0..5"),
        ([-1], [1], IndexError, "index -1"),
        ([0, 1], [1, np.nan], ValueError, "finite and at least 0, not NaN"),
        ([0, 1], [1, -0.5], ValueError, "not -0.5"),
        ([0, 1], [1, np.inf], ValueError, "not inf"),
        ([0, 1], [1, 1.7e308], ValueError, "finite"),
        ([0, 1], [1], ValueError, "2 indices, but 1 priorities"),
    ],
)
def test_a_refused_change_changes_nothing(indices, priorities, error, text):
    tree = filled([1, 2, 3, 4, 5])
    with pytest.raises(error, match=text):
        tree.set(np.array(indices), np.array(priorities, float))
    assert tree.leaves().tolist() == [1, 2, 3, 4, 5]
    assert tree.total == 15


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="capacity"):
        _core.SumTree(0)
    with pytest.raises(ValueError, match="every priority is 0"):
        _core.SumTree(3).sample(np.zeros(1))
    with pytest.raises(ValueError, match=r"\[0, 1\), not 1"):
        filled([1.0]).sample(np.ones(1))
    with pytest.raises(IndexError):
        filled([1.0]).get(np.array([1]))
    with pytest.raises(TypeError):
        filled([1.0]).get(np.array([0.0]))
    with pytest.raises(TypeError):
        filled([1.0]).set(np.array([0]), np.array([1], np.float32))
    with pytest.raises(TypeError):
        filled([1.0]).sample(np.zeros((1, 1)))


def test_threads_leave_a_whole_tree():
    tree = _core.SumTree(1000)

    def work(thread):
        rng = np.random.default_rng(thread)
        for _ in range(300):
            tree.set(rng.integers(0, 1000, 64), rng.uniform(0.1, 1, 64))
            _, priorities = tree.sample(rng.random(64))
            assert (priorities > 0).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert tree.total == filled(tree.leaves()).total
    assert tree.total == pytest.approx(tree.leaves().sum(), rel=1e-13)
