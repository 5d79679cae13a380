"""Cutting a rollout into segments and stacking them again must lose nothing."""

import numpy as np
import pytest
import torch

from random_segments import random_segment, random_structure
from tamiyo.learn.experience import flat_action
from tamiyo.learn.graphs import FIELDS
from tamiyo.learn.segment_batch import cut, pad, stack


def test_segments_hold_every_decision_once_and_end_with_its_episode(make_rollout):
    experience = make_rollout(steps=40, rows=3, exploration=0.5).experience
    segments = list(cut(experience, version=7))
    # Episodes of 12 decisions, the last one cut off after 4.
    assert [len(segment) for segment in segments] == [12, 12, 12, 4] * 3
    assert [bool(segment.terminated[-1]) for segment in segments] == [True, True, True, False] * 3
    assert [bool(segment.truncated[-1]) for segment in segments] == [False, False, False, True] * 3
    assert {segment.policy_version for segment in segments} == {7}
    rewards = np.concatenate([segment.reward for segment in segments])
    assert np.array_equal(rewards, experience.rewards.T.flatten().numpy())


def test_long_episodes_are_cut_after_sixteen_decisions(make_rollout):
    experience = make_rollout(steps=20, rows=1).experience
    endless = type(experience)(
        **{
            **{name: getattr(experience, name) for name in experience.__slots__},
            "observations": {
                name: column[:1].expand_as(column)
                for name, column in experience.observations.items()
            },
            "terminated": torch.zeros_like(experience.terminated),
            "done": torch.arange(20)[:, None] == 19,
            "actions": type(experience.actions)(
                *(torch.zeros_like(experience.actions.adapt),),
                torch.full_like(experience.actions.target, -1),
                torch.zeros_like(experience.actions.type),
            ),
        }
    )
    segments = list(cut(endless, version=0))
    assert [len(segment) for segment in segments] == [16, 4]
    assert not segments[0].truncated.any()


def test_a_change_of_structure_ends_a_segment_with_its_successor(make_rollout):
    experience = make_rollout(steps=10, rows=1).experience
    # The fifth decision takes the last layer away, and whatever is about it.
    layers = int(experience.observations["node_mask"][0, 0].sum())
    for name in ("node_mask", "x", "x_measured", "layer_type", "action_mask"):
        experience.observations[name][5:, :, layers - 1] = 0
    links = experience.observations["edge_index"][0, 0]
    gone = (links == layers - 1).any(0)
    for name in ("edge_mask", "edge_attr", "edge_measured"):
        experience.observations[name][5:, :, gone] = 0
    first, second = cut(experience, version=0)
    assert (len(first), len(second)) == (5, 5)
    assert first.successor is not None
    assert first.successor.structure.nodes == first.observations.structure.nodes - 1
    assert not first.truncated.any()
    stacked = stack([first, second])
    # The rollout's own last observation was left as it was.
    assert stacked.finals["node_mask"].sum(-1).tolist() == [layers - 1, layers]


def test_stacking_restores_columns_graphs_and_values(make_rollout, make_network):
    network = make_network()
    experience = make_rollout(network, steps=30, rows=4, exploration=0.5).experience
    segments = list(cut(experience, version=0))
    stacked = stack(segments)
    row, start = 0, 0
    steps, rows = experience.shape
    for column, segment in enumerate(segments):
        here = torch.arange(start, start + len(segment)) * rows + row
        there = torch.arange(len(segment)) * len(segments) + column
        for name in ("log_prob", "rewards", "terminated", "sampled"):
            original = getattr(experience, name).flatten()[here]
            assert torch.equal(getattr(stacked, name).flatten()[there], original), name
        for name in ("adapt", "target", "type"):
            original = getattr(flat_action(experience.actions, here), name)
            assert torch.equal(getattr(flat_action(stacked.actions, there), name), original), name
        with torch.no_grad():
            expected = network(experience.graphs(here))["value_estimate"]
            found = network(stacked.graphs(there))["value_estimate"]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert bool(stacked.done.flatten()[there[-1]])
        start += len(segment)
        if start == steps:
            row, start = row + 1, 0
    assert int(stacked.valid.sum()) == steps * rows
    assert set(stacked.observations) == set(FIELDS)


def test_what_followed_is_found_again(make_rollout):
    """The value of the next observation, in a rollout and in its segments."""
    experience = make_rollout(steps=30, rows=4).experience
    stacked = stack(list(cut(experience, version=0)))
    for one in (experience, stacked):
        marks = one.observations["x"].double().sum((-1, -2))
        following = one.next_values(marks, one.finals["x"].double().sum((-1, -2)))
        one_by_one = []
        for step, row in one.valid.nonzero().tolist():
            at = step * one.shape[1] + row
            if bool(one.terminated[step, row]):
                expected = 0.0
            elif bool(one.done[step, row]):
                (place,) = (one.final_at == at).nonzero()[:, 0].tolist()
                expected = float(one.finals["x"][place].double().sum())
            else:
                expected = float(marks[step + 1, row])
            one_by_one.append(abs(float(following[step, row]) - expected))
        assert max(one_by_one) < 1e-9
    total = experience.next_values(
        experience.observations["x"].double().sum((-1, -2)),
        experience.finals["x"].double().sum((-1, -2)),
    ).sum()
    torch.testing.assert_close(following[stacked.valid].sum(), total)


@pytest.mark.parametrize("seed", range(20))
def test_stacked_segments_lie_side_by_side_in_zeros(seed):
    """Number for number where they belong, whatever their lengths, graphs and successors."""
    rng = np.random.default_rng(seed)

    def draw():
        structure = random_structure(rng, int(rng.integers(1, 6)), int(rng.integers(0, 7)))
        return structure, int(rng.integers(1, 17))

    segments = []
    for _ in range(int(rng.integers(1, 8))):
        (structure, steps), (successor, _) = draw(), draw()
        ended = np.arange(steps) == steps - (1 if rng.random() < 0.5 else 99)
        other = successor if rng.random() < 0.4 else None
        segments.append(random_segment(rng, steps, structure, successor=other, terminated=ended))
    stacked = stack(segments)
    renamed = {"adapt": "actions", "target": "actions", "type": "actions", "reward": "rewards"}
    for row, segment in enumerate(segments):
        steps = len(segment)
        for name, column in segment.columns():
            if name == "truncated":
                continue
            found = getattr(stacked, renamed.get(name, name))
            found = getattr(found, name, found)[:, row].numpy()
            expected = np.where(segment.sampled, column, 0) if name == "log_prob" else column
            assert found.dtype == column.dtype, name
            np.testing.assert_array_equal(found[:steps], expected, err_msg=name)
            assert not found[steps:].any(), name
        assert stacked.valid[:, row].sum() == steps
        assert stacked.done[:, row].tolist() == [t >= steps - 1 for t in range(len(stacked.valid))]
    order = {int(flat): index for index, flat in enumerate(stacked.final_at)}
    for row, segment in enumerate(segments):
        moments = [(block, m) for block in segment.blocks for m in range(len(block))]
        last = (len(segment) - 1) * len(segments) + row
        assert (last in order) != bool(segment.terminated[-1])
        for at, (block, moment) in enumerate(moments):
            for name, column in stacked.observations.items():
                if at < len(segment):
                    found = column[at, row].numpy()
                elif last in order:
                    found = stacked.finals[name][order[last]].numpy()
                else:
                    continue
                expected = field(block, moment, name)
                where = tuple(slice(size) for size in expected.shape)
                np.testing.assert_array_equal(found[where], expected, err_msg=name)
                assert np.count_nonzero(found) == np.count_nonzero(expected), name


def field(block, moment, name):
    structure = block.structure
    if name in ("layer_type", "edge_index"):
        return getattr(structure, name)
    if name in ("node_mask", "edge_mask"):
        return np.ones(getattr(structure, name[:4] + "s"), bool)
    return getattr(block, name)[moment]


def test_single_moments_are_padded_as_those_of_segments_are(make_rollout):
    segments = list(cut(make_rollout(steps=10, rows=3).experience, version=0))
    stacked = stack(segments).observations
    alone = pad([segment.observations[:1] for segment in segments])
    assert set(alone) == set(FIELDS)
    for name in FIELDS:
        assert torch.equal(alone[name], stacked[name][0]), name
