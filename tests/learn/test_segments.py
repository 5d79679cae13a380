"""Observations and segments: what they hold, what they refuse, and that nothing changes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from random_segments import random_observations, random_segment, random_structure
from tamiyo.contracts import ModelTopology, SignalBatch, TopologyEdge, TopologyNode
from tamiyo.graph import ModelGraphBuilder
from tamiyo.learn.observations import GraphStructure, Observations
from tamiyo.learn.segments import SEGMENT_LENGTH, TARGETS, Segment, unknown_targets


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def built_graph(layers=3):
    nodes = tuple(
        TopologyNode(layer_id=i, name=str(i), type="Linear", parameters=10, actions=("prune",))
        for i in range(layers)
    )
    edges = tuple(TopologyEdge(source=i, target=i + 1) for i in range(layers - 1))
    topology = ModelTopology(run="r", nodes=nodes, edges=edges)
    return ModelGraphBuilder().build_model_graph(SignalBatch.from_signals([]), topology).graph_data


class TestObservations:
    def test_a_built_graph_is_one_moment_with_its_own_numbers(self):
        data = built_graph()
        observations = Observations.from_data(data)
        assert len(observations) == 1
        assert torch.equal(torch.tensor(observations.structure.edge_index), data.edge_index)
        assert torch.equal(torch.tensor(observations.structure.layer_type), data.layer_type)
        for name, column in observations.columns():
            assert torch.equal(torch.tensor(column).reshape(data[name].shape), data[name]), name

    def test_an_equal_structure_is_shared_and_another_one_is_not(self):
        first = Observations.from_data(built_graph()).structure
        assert Observations.from_data(built_graph(), first).structure is first
        assert Observations.from_data(built_graph(4), first).structure is not first

    def test_the_key_is_that_of_the_content(self, rng):
        edges, types = np.array([[0, 1], [1, 0]]), np.array([3, 4])
        key = GraphStructure(edges, types).key
        assert GraphStructure(edges.copy(), types.copy()).key == key
        others = [
            GraphStructure(edges[::-1], types),
            GraphStructure(edges, types[::-1]),
            GraphStructure(edges[:, :1], types),
            GraphStructure(edges, np.array([3, 4, 0])),
        ]
        assert len({key, *(other.key for other in others)}) == 5

    def test_moments_are_cut_out_and_put_together_again(self, rng):
        whole = random_observations(rng, random_structure(rng), 7)
        parts = [whole[0:2], whole[2:3], whole[3:7]]
        assert [len(part) for part in parts] == [2, 1, 4]
        assert Observations.concatenate(parts).equals(whole)
        assert not parts[0].equals(whole[1:3])
        with pytest.raises(ValueError, match="one structure"):
            Observations.concatenate([whole, random_observations(rng, random_structure(rng, 5), 1)])

    def test_a_graph_without_edges_is_one(self, rng):
        structure = GraphStructure(np.zeros((2, 0), int), np.zeros(4, int))
        assert random_observations(rng, structure, 2).edge_attr.shape == (2, 0, 8)

    def test_the_memory_is_that_of_the_columns(self, rng):
        observations = random_observations(rng, random_structure(rng, 5, 6), 3)
        floats, flags = 5 * 16 + 6 * 8 + 19, 5 * 16 + 6 * 8 + 19 + 5 * 10 + 10
        assert observations.nbytes == 3 * (4 * floats + flags)
        assert observations.structure.nbytes == 8 * (2 * 6 + 5)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"x": np.zeros((2, 4, 16))}, r"x must be \[M, \*\(3, 16\)\], not \(2, 4, 16\)"),
            ({"edge_attr": np.zeros((2, 4, 7))}, "edge_attr"),
            ({"global_features": np.zeros(19)}, "global_features"),
            ({"action_mask": np.zeros((3, 3, 10))}, "action_mask has 3 moments, x has 2"),
            ({"x": np.full((2, 3, 16), np.nan)}, "x has values that are not finite"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, rng, change, text):
        observations = random_observations(rng, random_structure(rng), 2)
        with pytest.raises(ValueError, match=text):
            replace(observations, **change)

    @pytest.mark.parametrize(
        ("edges", "types", "text"),
        [
            ([[0], [2]], [0, 0], "outside 0..1"),
            ([[-1], [0]], [0, 0], "outside"),
            ([[0, 1]], [0, 0], r"\[2, E\]"),
            ([[0], [0]], [], r"\[N\]"),
        ],
    )
    def test_edges_without_ends_are_refused(self, edges, types, text):
        with pytest.raises(ValueError, match=text):
            GraphStructure(np.array(edges), np.array(types))


class TestSegment:
    def test_nothing_that_the_caller_does_later_changes_it(self, rng):
        reward = np.zeros(4, np.float32)
        segment = random_segment(rng, 4, reward=reward)
        reward[:] = 9
        assert segment.reward.tolist() == [0] * 4
        for _, column in segment.columns():
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 0
        with pytest.raises(ValueError, match="read-only"):
            segment.observations.x[0] = 0

    def test_columns_and_memory(self, rng):
        segment = random_segment(rng, 5)
        assert len(segment) == 5
        assert segment.nbytes == segment.observations.nbytes + 5 * (4 + 16 + 8 + 24)
        assert np.isnan(unknown_targets(3)).all()
        assert unknown_targets(3).shape == (3, len(TARGETS))

    def test_a_last_moment_on_another_structure_is_a_block_of_its_own(self, rng):
        segment = random_segment(rng, 5, successor=random_structure(rng, 6, 2))
        assert [len(block) for block in segment.blocks] == [5, 1]
        assert segment.nbytes > segment.observations.nbytes + segment.successor.nbytes

    def test_the_whole_model_is_a_target(self, rng):
        observations = random_observations(rng, random_structure(rng), 2)
        mask = np.zeros((2, 10), bool)
        mask[0, 9] = True
        observations = replace(observations, model_action_mask=mask)
        whole = {"adapt": [True], "target": [-1], "type": [9]}
        segment = replace(random_segment(rng, 1), observations=observations, **whole)
        assert segment.type.tolist() == [9]
        with pytest.raises(ValueError, match="decision 0 was not legal"):
            replace(segment, type=[8])

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"reward": [0.0, np.nan]}, "reward must be finite"),
            ({"reward": [0.0]}, r"reward must be \(2,\), not \(1,\)"),
            ({"targets": np.zeros((2, 5))}, "targets must be"),
            ({"targets": np.full((2, 6), -0.5)}, "target safety is out of range"),
            ({"targets": np.full((2, 6), 1.5)}, "target safety is out of range"),
            ({"log_prob": [-1, np.nan], "sampled": [True, True]}, "log_prob of a sampled"),
            ({"log_prob": [-1, 0.1], "sampled": [True, True]}, "log_prob of a sampled"),
            ({"terminated": [True, False]}, "ends at the last decision"),
            ({"truncated": [True, False]}, "ends at the last decision"),
            ({"policy_version": -1}, "policy_version"),
            ({"adapt": [False, False], "target": [0, -1]}, "where nothing is done"),
            ({"adapt": [False, False], "target": [-1, -1], "type": [0, 1]}, "where nothing is"),
            ({"adapt": [True, True], "target": [3, 0]}, "below 3"),
            ({"adapt": [True, True], "target": [-2, 0]}, "below 3"),
            ({"adapt": [True, True], "target": [0, 0], "type": [0, 10]}, "type must be one of 10"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, rng, change, text):
        with pytest.raises(ValueError, match=text):
            replace(random_segment(rng, 2), **change)

    def test_an_action_that_was_not_legal_is_refused(self, rng):
        segment = random_segment(rng, 3, adapt=[False, True, True], target=[-1, 0, 2])
        mask = segment.observations.action_mask.copy()
        mask[2, 2, 0] = False
        with pytest.raises(ValueError, match="decision 2 was not legal"):
            replace(segment, observations=replace(segment.observations, action_mask=mask))

    def test_a_log_probability_need_only_be_known_where_it_is_used(self, rng):
        segment = random_segment(rng, 2, sampled=[False, True], log_prob=[np.nan, -1])
        assert np.isnan(segment.log_prob[0])

    def test_as_many_moments_as_decisions_and_one_more(self, rng):
        segment = random_segment(rng, 3)
        with pytest.raises(ValueError, match="3 decisions need 4 moments, not 3"):
            replace(segment, observations=segment.observations[0:3])
        with pytest.raises(ValueError, match="one moment"):
            replace(segment, successor=segment.observations[0:2])
        with pytest.raises(ValueError, match="1 to 16 decisions, not 17"):
            random_segment(rng, SEGMENT_LENGTH + 1)
        with pytest.raises(ValueError, match="not 0"):
            random_segment(rng, 0)

    def test_types_are_those_of_the_table(self, rng):
        segment = random_segment(rng)
        assert isinstance(segment, Segment)
        assert segment.reward.dtype == segment.log_prob.dtype == np.float32
        assert segment.target.dtype == segment.type.dtype == np.int64
        assert segment.adapt.dtype == segment.sampled.dtype == bool
