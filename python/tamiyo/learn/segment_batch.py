"""Segments as columns, and columns as segments: between the replay memory and the learner."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.learn.experience import Experience
from tamiyo.learn.graphs import FIELDS
from tamiyo.learn.observations import GraphStructure, Observations
from tamiyo.learn.segments import SEGMENT_LENGTH, Segment
from tamiyo.policy.actions import Action

__all__ = ["cut", "pad", "stack"]

Arrays = dict[str, npt.NDArray[Any]]
Indices = npt.NDArray[np.int64]

_PER_DECISION = (
    *("adapt", "target", "type", "log_prob", "reward", "terminated", "sampled", "targets"),
)
_PER_NODE = ("x", "x_measured", "action_mask")
_PER_EDGE = ("edge_attr", "edge_measured")
_PER_GRAPH = ("global_features", "global_measured", "model_action_mask")


def stack(segments: Sequence[Segment]) -> Experience:
    """Segments side by side, padded to the longest and to the largest graph."""
    counts = np.array([len(segment) for segment in segments])
    at_decision = _places(counts)
    columns = {
        name: torch.from_numpy(_gather(pieces, at_decision))
        for name, pieces in _columns_of(segments, _PER_DECISION)
    }
    blocks = [segment.blocks for segment in segments]
    moments = _padded_moments(blocks, _places(counts + 1))
    steps, rows = at_decision.shape
    lengths = torch.from_numpy(counts)
    valid = torch.from_numpy(at_decision > 0)
    at = (lengths - 1) * rows + torch.arange(rows)
    after = lengths * rows + torch.arange(rows)
    # Ascending in the flattened [T * B] steps, as `Experience.final_at` promises.
    order = at.argsort()
    order = order[~columns["terminated"].flatten()[at[order]]]
    return Experience(
        observations={name: column[:steps] for name, column in moments.items()},
        actions=Action(columns["adapt"], columns["target"], columns["type"]),
        # Where no lots were drawn, μ gave the action probability one.
        log_prob=columns["log_prob"].masked_fill(~columns["sampled"], 0.0),
        rewards=columns["reward"],
        terminated=columns["terminated"],
        done=~valid | (torch.arange(steps)[:, None] == lengths - 1),
        sampled=columns["sampled"],
        valid=valid,
        finals={
            name: column.flatten(0, 1).index_select(0, after[order])
            for name, column in moments.items()
        },
        final_at=at[order],
        targets=columns["targets"],
    )


def pad(moments: Sequence[Observations]) -> dict[str, Tensor]:
    """[M, ...] for each of `FIELDS`, padded to the largest graph.

    Args:
        moments: M single ones, of any graphs.
    """
    at = _places(np.ones(len(moments), np.int64))
    return {name: one[0] for name, one in _padded_moments([[one] for one in moments], at).items()}


def _padded_moments(rows: Sequence[Sequence[Observations]], at: Indices) -> dict[str, Tensor]:
    """[moments, S, ...] for each of `FIELDS`; what nothing fills is padding.

    Args:
        rows: S of them, each with its moments in blocks.
        at: [moments, S], see `_gather`, counted over the moments of all rows.
    """
    blocks = [block for row in rows for block in row]
    lengths = [len(block) for block in blocks]
    structures, structure = _structures(blocks)
    nodes = np.array([0, *(one.nodes for one in structures)])
    edges = np.array([0, *(one.edges for one in structures)])
    # The structure of every moment; 0 is padding.
    number = np.repeat([0, *structure], [1, *lengths])[at]
    padded = {name: _gather(pieces, at) for name, pieces in _columns_of(blocks, _PER_GRAPH)}
    for names, sizes in ((_PER_NODE, nodes), (_PER_EDGE, edges)):
        places = list(_places_of_blocks(rows, lengths, sizes[structure].tolist()))
        for name, pieces in _columns_of(blocks, names):
            out = np.zeros((*at.shape, sizes.max(), pieces[0].shape[-1]), pieces[0].dtype)
            for place, piece in zip(places, pieces, strict=True):
                out[place] = piece
            padded[name] = out
    types = np.zeros((len(nodes), nodes.max()), np.int64)
    links = np.zeros((len(edges), 2, edges.max()), np.int64)
    for index, one in enumerate(structures, start=1):
        types[index, : one.nodes] = one.layer_type
        links[index, :, : one.edges] = one.edge_index
    padded |= {
        "layer_type": types.take(number, axis=0),
        "edge_index": links.take(number, axis=0),
        "node_mask": np.arange(nodes.max()) < nodes[number][..., None],
        "edge_mask": np.arange(edges.max()) < edges[number][..., None],
    }
    return {name: torch.from_numpy(padded[name]) for name in FIELDS}


def _structures(blocks: Sequence[Observations]) -> tuple[Sequence[GraphStructure], list[int]]:
    """The different structures, and for each block which one is its own, counted from 1."""
    number: dict[int, int] = {}
    found = []
    for block in blocks:
        if id(block.structure) not in number:
            found.append(block.structure)
            number[id(block.structure)] = len(found)
    return found, [number[id(block.structure)] for block in blocks]


def _places_of_blocks(
    rows: Sequence[Sequence[Observations]], lengths: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[slice, int, slice]]:
    """For every block its moments, its row, and its nodes (or edges)."""
    block = 0
    for number, row in enumerate(rows):
        start = 0
        for _ in row:
            yield slice(start, start + lengths[block]), number, slice(sizes[block])
            start += lengths[block]
            block += 1


def _columns_of(
    pieces: Sequence[Segment] | Sequence[Observations], names: Sequence[str]
) -> Iterator[tuple[str, tuple[npt.NDArray[Any], ...]]]:
    """For every name that column of all pieces."""
    return zip(names, zip(*map(attrgetter(*names), pieces), strict=True), strict=True)


def _places(counts: Indices) -> Indices:
    """[most, S]: where the rows of S pieces of so many rows are, see `_gather`."""
    step, first = np.arange(counts.max())[:, None], 1 + np.cumsum(counts) - counts
    return np.where(step < counts, first + step, 0)


def _gather(pieces: Sequence[npt.NDArray[Any]], at: Indices) -> npt.NDArray[Any]:
    """Rows of the pieces, which are laid end to end and counted from 1; 0 is a row of zeros."""
    blank = np.zeros((1, *pieces[0].shape[1:]), pieces[0].dtype)
    return np.concatenate([blank, *pieces]).take(at, axis=0)


def cut(experience: Experience, version: int) -> Iterator[Segment]:
    """The rows of an experience in segments, each of one episode and one graph structure.

    Args:
        experience: The rows; what comes after a row's valid steps is left out.
        version: Of the policy that acted.
    """
    arrays = {name: column.numpy() for name, column in experience.observations.items()}
    finals = {name: column.numpy() for name, column in experience.finals.items()}
    final_of = {int(at): order for order, at in enumerate(experience.final_at)}
    steps, rows = experience.shape
    for row in range(rows):
        start = 0
        while start < steps and bool(experience.valid[start, row]):
            end = _end_of_segment(experience, arrays, row, start)
            order = final_of.get((end - 1) * rows + row)
            if order is not None:
                last = {name: column[order] for name, column in finals.items()}
            else:
                # After a termination nothing is looked at: its own observation stands in.
                follows = end - int(experience.done[end - 1, row])
                last = {name: column[follows, row] for name, column in arrays.items()}
            moments = {
                name: np.concatenate([column[start:end, row], last[name][None]])
                for name, column in arrays.items()
            }
            yield _segment(experience, moments, slice(start, end), row, version)
            start = end


def _end_of_segment(experience: Experience, arrays: Arrays, row: int, start: int) -> int:
    """One past the last step that belongs to the segment which starts at `start`."""
    limit = min(start + SEGMENT_LENGTH, len(experience.rewards))
    for step in range(start, limit - 1):
        if bool(experience.done[step, row]) or not _same_structure(arrays, row, step):
            return step + 1
    return limit


def _same_structure(arrays: Arrays, row: int, step: int) -> bool:
    """Whether a step and the next one have the same layers and edges."""
    names = ("node_mask", "edge_mask", "edge_index", "layer_type")
    return all(
        np.array_equal(arrays[name][step, row], arrays[name][step + 1, row]) for name in names
    )


def _segment(
    experience: Experience, moments: Arrays, steps: slice, row: int, version: int
) -> Segment:
    blocks = [_observations(moments, slice(0, -1)), _observations(moments, slice(-1, None))]
    together = blocks[0].structure.key == blocks[1].structure.key
    cut_off = experience.done[steps, row] & ~experience.terminated[steps, row]
    return Segment(
        observations=Observations.concatenate(blocks) if together else blocks[0],
        adapt=experience.actions.adapt[steps, row].numpy(),
        target=experience.actions.target[steps, row].numpy(),
        type=experience.actions.type[steps, row].numpy(),
        log_prob=experience.log_prob[steps, row].numpy(),
        reward=experience.rewards[steps, row].numpy(),
        terminated=experience.terminated[steps, row].numpy(),
        truncated=cut_off.numpy(),
        sampled=experience.sampled[steps, row].numpy(),
        policy_version=version,
        targets=experience.targets[steps, row].numpy(),
        successor=None if together else blocks[1],
    )


def _observations(moments: Arrays, which: slice) -> Observations:
    first = {name: column[which][0] for name, column in moments.items()}
    real, linked = first["node_mask"].astype(bool), first["edge_mask"].astype(bool)
    structure = GraphStructure(first["edge_index"][:, linked], first["layer_type"][real])
    return Observations(
        structure,
        **{name: moments[name][which][:, real] for name in _PER_NODE},
        **{name: moments[name][which][:, linked] for name in _PER_EDGE},
        **{name: moments[name][which] for name in _PER_GRAPH},
    )
