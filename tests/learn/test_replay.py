"""The replay memory: what it holds, how it draws (against cpprb), how it survives a restart."""

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from random_segments import random_segment, random_structure, same_segment
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.replay.archive import pack, unpack

# χ² above which one of a thousand true distributions would end.
CHI_SQUARE_99 = 148.2


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def filled(errors, **settings):
    """A memory with one small segment for each of these errors."""
    rng = np.random.default_rng(1)
    structure = random_structure(rng, 1, 1)
    memory = PrioritizedReplay(len(errors), **settings)
    for error in errors:
        memory.add_segment(random_segment(rng, 1, structure), float(error))
    return memory


def filled_cpprb(errors):
    """The same memory by cpprb, where there is a wheel of it."""
    cpprb = pytest.importorskip("cpprb")
    columns = {"at": {"dtype": np.int64}}
    memory = cpprb.PrioritizedReplayBuffer(len(errors), columns, alpha=0.6, eps=1e-3)
    for at, error in enumerate(errors):
        memory.add(at=at, priorities=float(error))
    return memory


class TestDraws:
    def test_weights_are_those_of_cpprb(self, rng):
        errors = 10 ** rng.uniform(-4, 2, 200)
        for beta in (0.4, 0.7, 1.0):
            ours, theirs = filled(errors, beta=beta), filled_cpprb(errors)
            reference = theirs.sample(5000, beta=beta)
            expected = np.full(200, np.nan)
            expected[reference["indexes"].astype(int)] = reference["weights"]
            sample = ours.sample_batch(5000)
            both = ~np.isnan(expected[sample.indices])
            assert both.mean() > 0.9
            np.testing.assert_allclose(
                sample.weights[both], expected[sample.indices[both]], rtol=1e-5
            )
            assert sample.weights.max() <= 1

    def test_draws_follow_the_priorities_as_those_of_cpprb_do(self, rng):
        errors = rng.uniform(0, 2, 100)
        ours, theirs = filled(errors), filled_cpprb(errors)
        expected = (errors + 1e-3) ** 0.6
        expected *= 200_000 / expected.sum()
        # One at a time, for strata make the counts more even than chance.
        own = np.bincount([ours.sample_batch(1).indices[0] for _ in range(200_000)], minlength=100)
        assert ((own - expected) ** 2 / expected).sum() < CHI_SQUARE_99
        drawn = [theirs.sample(64)["indexes"].astype(int) for _ in range(200_000 // 64)]
        counts = np.bincount(np.concatenate(drawn), minlength=100)
        pooled = (own + counts) / (own.sum() + counts.sum())
        two_samples = sum(
            ((c - pooled * c.sum()) ** 2 / (pooled * c.sum())).sum() for c in (own, counts)
        )
        assert two_samples < CHI_SQUARE_99

    def test_with_beta_one_the_weighted_mean_is_that_of_a_uniform_draw(self, rng):
        errors = 10 ** rng.uniform(-2, 1, 50)
        values = rng.normal(size=50) + errors
        means = []
        for progress in (1.0, 0.0):
            ours = filled(errors)
            ours.anneal(progress)
            weighted, weights = 0.0, 0.0
            for _ in range(4000):
                sample = ours.sample_batch(50)
                weighted += (sample.weights * values[sample.indices]).sum()
                weights += sample.weights.sum()
            means.append(weighted / weights)
        assert means[0] == pytest.approx(values.mean(), rel=0.01)
        assert means[1] > 1.3 * values.mean(), "and with less than one it leans to the large ones"

    def test_with_beta_one_it_is_unbiased_exactly(self, rng):
        """Not estimated: the probability of each draw times its weight is the same for all."""
        errors = 10 ** rng.uniform(-3, 1, 30)
        ours = filled(errors, beta=1.0)
        sample = ours.sample_batch(20_000)
        weight = dict(zip(sample.indices.tolist(), sample.weights.tolist(), strict=True))
        priority = (errors + 1e-3) ** 0.6
        product = [priority[at] * weight[at] for at in weight]
        assert len(product) > 20
        np.testing.assert_allclose(product, priority.min(), rtol=1e-12)

    def test_beta_rises_to_exactly_one(self):
        memory = PrioritizedReplay(10)
        seen = []
        for progress in np.linspace(0, 1, 11):
            memory.anneal(float(progress))
            seen.append(memory.beta)
        np.testing.assert_allclose(seen, 0.4 + 0.6 * np.linspace(0, 1, 11))
        assert memory.beta == 1
        with pytest.raises(ValueError, match="progress"):
            memory.anneal(1.1)

    def test_a_new_segment_is_as_likely_as_the_likeliest(self, rng):
        memory = PrioritizedReplay(100)
        memory.add_segment(random_segment(rng))
        assert memory.priorities[0] == 1, "where there is nothing to compare it with"
        memory.add_segment(random_segment(rng), 0.5)
        memory.add_segment(random_segment(rng), 3.0)
        memory.add_segment(random_segment(rng))
        assert memory.priorities[3] == memory.priorities[2] == 3.001**0.6

    def test_the_same_seed_gives_the_same_draws_and_another_one_others(self):
        errors = np.arange(1.0, 100.0)
        first, again, other = (filled(errors, seed=seed) for seed in (3, 3, 4))
        draws = [memory.sample_batch(64).indices.tolist() for memory in (first, again, other)]
        assert draws[0] == draws[1] != draws[2]

    def test_an_empty_memory_has_nothing_to_draw(self):
        with pytest.raises(ValueError, match="nothing to sample"):
            PrioritizedReplay(10).sample_batch(1)


class TestPriorities:
    def test_they_are_set_by_the_rule(self, rng):
        memory = filled(np.ones(5))
        updated = memory.update_priorities(np.array([1, 3, 1]), np.array([9.0, 4.0, 0.0]))
        assert updated == 3
        expected = (np.array([1, 0, 1, 4, 1]) + 1e-3) ** 0.6
        np.testing.assert_array_equal(memory.priorities, expected)

    def test_one_that_left_in_the_meantime_changes_nothing(self, rng):
        memory = filled(np.ones(4))
        sample = memory.sample_batch(64)
        memory.add_segment(random_segment(rng, 1), 2.0)  # in the place of the first
        before = memory.priorities
        assert memory.update_priorities(np.array([0]), np.array([100.0])) == 0
        np.testing.assert_array_equal(memory.priorities, before)
        updated = memory.update_priorities(sample.indices, np.full(64, 100.0))
        assert updated == (sample.indices != 0).sum() < 64
        assert memory.priorities[-1] == 2.001**0.6

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
    def test_what_is_no_size_is_refused(self, rng, bad):
        memory = filled(np.ones(4))
        with pytest.raises(ValueError, match="finite and not negative"):
            memory.update_priorities(np.array([0, 1]), np.array([1.0, bad]))
        with pytest.raises(ValueError, match="finite and not negative"):
            memory.add_segment(random_segment(rng, 1), bad)
        with pytest.raises(ValueError, match="one magnitude for each"):
            memory.update_priorities(np.array([0, 1]), np.array([1.0]))
        with pytest.raises(ValueError, match="of a sample"):
            memory.update_priorities(np.array([-4]), np.array([1.0]))
        np.testing.assert_array_equal(memory.priorities, 1.001**0.6)


class TestBounds:
    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(st.integers(1, 16), st.integers(0, 3), st.integers(1, 4), st.booleans()),
            max_size=40,
        ),
        st.sampled_from([16, 40, 100]),
        st.sampled_from([40_000, 2**30]),
    )
    def test_it_holds_what_a_plain_list_would(self, arrivals, capacity, max_bytes):
        """Length, versions to go forward by, nodes, whether the segment's policy is an old one."""
        rng = np.random.default_rng(0)
        structures = {nodes: random_structure(rng, nodes, 2 * nodes) for nodes in range(1, 5)}
        memory = PrioritizedReplay(capacity, max_bytes=max_bytes)
        naive, version = [], 0

        def nbytes():
            shared = {block.structure.key: block.structure for s in naive for block in s.blocks}
            return sum(s.nbytes for s in naive) + sum(s.nbytes for s in shared.values())

        for steps, forward, nodes, old in arrivals:
            version += forward
            segment = random_segment(
                rng, steps, structures[nodes], version=max(version - 5 * old, 0)
            )
            naive = [kept for kept in naive if kept.policy_version >= version - 8]
            memory.advance(version)
            naive.append(segment)
            while sum(map(len, naive)) > capacity or nbytes() > max_bytes:
                naive.pop(0)
            assert memory.add_segment(segment)
            assert len(memory) == len(naive)
            assert memory.transitions == sum(map(len, naive)) <= capacity
            assert memory.nbytes == nbytes() <= max_bytes
            assert memory.structures == len({b.structure.key for s in naive for b in s.blocks})
            assert all(map(same_segment, memory.segments, naive))
            drawn = memory.sample_batch(64)
            assert all(segment in memory.segments for segment in drawn.segments)

    def test_eight_versions_are_kept_and_no_more(self, rng):
        memory = PrioritizedReplay(1000)
        for version in range(12):
            assert memory.add_segment(random_segment(rng, version=version))
        assert [segment.policy_version for segment in memory.segments] == list(range(3, 12))
        assert not memory.add_segment(random_segment(rng, version=2))
        assert memory.advance(13) == 2
        assert memory.advance(5) == 0
        assert memory.policy_version == 13
        assert [segment.policy_version for segment in memory.segments] == list(range(5, 12))

    def test_those_that_leave_for_their_age_leave_room_only_in_their_turn(self, rng):
        memory = PrioritizedReplay(4)
        memory.advance(5)
        young = random_segment(rng, 1, version=5)
        for segment in (young, *(random_segment(rng, 1, version=0) for _ in range(3))):
            memory.add_segment(segment)
        memory.advance(9)
        assert memory.segments == (young,)
        # The next number belongs to the place of the young one, which therefore goes.
        newer = [random_segment(rng, 1, version=9) for _ in range(6)]
        for segment in newer:
            memory.add_segment(segment)
        assert memory.segments == tuple(newer[2:])

    def test_a_structure_counts_once_towards_the_memory(self, rng):
        structures = [random_structure(rng, 20, 500) for _ in range(2)]
        segments = [random_segment(rng, 1, structure) for structure in structures]
        exactly = 2 * segments[0].nbytes + 2 * structures[0].nbytes
        for max_bytes, held in ((exactly, 2), (exactly - 1, 1)):
            memory = PrioritizedReplay(4, max_bytes=max_bytes)
            memory.add_segment(segments[0])
            memory.add_segment(segments[1])
            assert len(memory) == held
        twice = PrioritizedReplay(4, max_bytes=exactly - structures[0].nbytes)
        twice.add_segment(segments[0])
        twice.add_segment(segments[0])
        assert len(twice) == 2

    def test_a_segment_larger_than_everything_is_refused(self, rng):
        with pytest.raises(ValueError, match="larger than the whole memory"):
            PrioritizedReplay(8).add_segment(random_segment(rng, 9))
        with pytest.raises(ValueError, match="larger than the whole memory"):
            PrioritizedReplay(100, max_bytes=1000).add_segment(random_segment(rng, 9))

    @pytest.mark.parametrize(
        "settings",
        [{"alpha": 1.1}, {"beta": -0.1}, {"epsilon": 0.0}, {"max_age": -1}, {"capacity": 0}],
    )
    def test_settings_that_make_no_sense_are_refused(self, settings):
        with pytest.raises(ValueError, match=r"must|capacity"):
            PrioritizedReplay(**settings)

    def test_a_graph_is_stored_once_and_the_rest_is_what_it_says(self, rng):
        structure = random_structure(rng, 50, 120)
        tracemalloc.start()
        memory = PrioritizedReplay(50_000)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            # Each with arrays of its own, as from a checkpoint or a live run.
            own = type(structure)(structure.edge_index.copy(), structure.layer_type.copy())
            memory.add_segment(random_segment(rng, 16, own))
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert memory.structures == 1
        assert memory.nbytes <= used <= memory.nbytes + 200 * 8_000
        assert memory._pool.nbytes == structure.nbytes


class TestRestart:
    def test_packed_segments_come_back_number_for_number(self, rng):
        structures = [random_structure(rng, nodes, edges) for nodes, edges in [(1, 0), (4, 6)]]
        segments = [
            random_segment(rng, steps, structures[at % 2], version=at, successor=successor)
            for at, (steps, successor) in enumerate(
                [(16, None), (1, structures[1]), (7, None), (16, structures[0]), (2, None)]
            )
        ]
        back = unpack(pack(segments))
        assert all(map(same_segment, segments, back))
        assert len({id(block.structure) for segment in back for block in segment.blocks}) == 2
        assert unpack(pack([])) == []

    def test_a_restored_memory_goes_on_bit_for_bit(self, rng, tmp_path):
        memory = filled(rng.uniform(0, 2, 50), seed=9)
        memory.anneal(0.5)
        for version in range(5):
            sample = memory.sample_batch(16)
            memory.update_priorities(sample.indices, rng.uniform(0, 3, 16))
            memory.add_segment(random_segment(rng, 16, version=version))
        save_file(memory.state_dict(), tmp_path / "replay.safetensors")
        restored = PrioritizedReplay(50, seed=1)
        restored.add_segment(random_segment(rng))
        restored.load_state_dict(load_file(tmp_path / "replay.safetensors"))
        assert restored.policy_version == 4
        for version in range(5, 12):
            new = random_segment(rng, 3, version=version)
            errors = rng.uniform(0, 3, 16)
            for at in (memory, restored):
                at.add_segment(new)
            first, second = memory.sample_batch(16), restored.sample_batch(16)
            assert first.indices.tolist() == second.indices.tolist()
            assert first.weights.tobytes() == second.weights.tobytes()
            assert all(map(same_segment, first.segments, second.segments))
            for at in (memory, restored):
                at.update_priorities(first.indices, errors)
            assert memory.priorities.tobytes() == restored.priorities.tobytes()
            assert memory.nbytes == restored.nbytes

    def test_it_survives_the_process(self, rng, tmp_path):
        memory = filled(rng.uniform(0, 2, 50))
        file = tmp_path / "replay.safetensors"
        save_file(memory.state_dict(), file)
        code = (
            "import sys; from safetensors.torch import load_file\n"
            "from tamiyo.learn.replay import PrioritizedReplay\n"
            "memory = PrioritizedReplay(50); memory.load_state_dict(load_file(sys.argv[1]))\n"
            "sample = memory.sample_batch(64)\n"
            "print(sample.indices.tobytes().hex(), sample.weights.tobytes().hex())"
        )
        command = [sys.executable, "-c", code, str(file)]
        there = subprocess.run(command, check=True, capture_output=True, text=True)
        here = memory.sample_batch(64)
        assert there.stdout.split() == [here.indices.tobytes().hex(), here.weights.tobytes().hex()]

    def test_an_empty_one_survives_too(self, rng):
        memory = PrioritizedReplay(10)
        memory.load_state_dict(PrioritizedReplay(10).state_dict())
        assert len(memory) == 0
        for _ in range(5):
            assert memory.add_segment(random_segment(rng, 4))
        assert memory.transitions == 8

    def test_the_state_of_something_else_is_refused_and_nothing_changes(self, rng):
        memory = filled(np.ones(4))
        other = filled(np.ones(5))
        state = other.state_dict()
        with pytest.raises(ValueError, match="capacity 5, this memory 4"):
            memory.load_state_dict(state)
        with pytest.raises(ValueError, match="metadata"):
            memory.load_state_dict({})
        own = memory.state_dict()
        for name in own:
            if name.startswith("open."):
                continue  # there is no open episode here
            broken = {key: value for key, value in own.items() if key != name}
            with pytest.raises(ValueError, match="missing"):
                memory.load_state_dict(broken)
        with pytest.raises(ValueError, match="3 numbers for 4 segments"):
            memory.load_state_dict(own | {"serials": own["serials"][:3]})
        with pytest.raises(ValueError, match="4 indices, but 3 priorities"):
            memory.load_state_dict(own | {"priorities": own["priorities"][:3]})
        with pytest.raises(ValueError, match="finite"):
            memory.load_state_dict(own | {"priorities": own["priorities"] * np.nan})
        assert len(memory) == 4
        assert memory.sample_batch(4).segments


def test_threads_may_share_it(rng):
    memory = PrioritizedReplay(64)
    segments = [random_segment(rng, 4) for _ in range(8)]
    memory.add_segment(segments[0])

    def work(thread):
        own = np.random.default_rng(thread)
        for _ in range(100):
            memory.add_segment(segments[own.integers(8)])
            sample = memory.sample_batch(8)
            memory.update_priorities(sample.indices, own.uniform(0, 1, 8))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert memory.transitions == 4 * len(memory) == 64
    assert set(memory.sample_batch(1000).segments) == set(memory.segments)
