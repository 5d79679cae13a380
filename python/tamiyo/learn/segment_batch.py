"""Segments as columns, and columns as segments: between the replay memory and the learner."""

from collections.abc import Iterator, Sequence
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

__all__ = ["cut", "stack"]

Arrays = dict[str, npt.NDArray[Any]]

_PER_NODE = ("x", "x_measured", "action_mask")
_PER_EDGE = ("edge_attr", "edge_measured")
_PER_GRAPH = ("global_features", "global_measured", "model_action_mask")


def stack(segments: Sequence[Segment]) -> Experience:
    """Segments side by side, padded to the longest and to the largest graph."""
    lengths = torch.tensor([len(segment) for segment in segments])
    steps, rows = int(lengths.max()), len(segments)
    moments = _padded_moments(segments, steps + 1)
    columns = {
        name: torch.zeros(steps, rows, *values.shape[1:], dtype=torch.tensor(values).dtype)
        for name, values in segments[0].columns()
    }
    for row, segment in enumerate(segments):
        for name, values in segment.columns():
            columns[name][: len(segment), row] = torch.tensor(values)
    valid = torch.arange(steps)[:, None] < lengths
    at = (lengths - 1) * rows + torch.arange(rows)
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
        finals={name: column[lengths[order], order] for name, column in moments.items()},
        final_at=at[order],
        targets=columns["targets"],
    )


def _padded_moments(segments: Sequence[Segment], moments: int) -> dict[str, Tensor]:
    """[moments, S, ...] for each of `FIELDS`; what no segment fills is padding."""
    structures = [block.structure for segment in segments for block in segment.blocks]
    nodes = max(structure.nodes for structure in structures)
    edges = max(structure.edges for structure in structures)
    some = segments[0].observations
    padded = {
        name: np.zeros((moments, len(segments), *size, *getattr(some, name).shape[axes:]), kind)
        for names, size, axes, kind in (
            (("x",), (nodes,), 2, np.float32),
            (("x_measured", "action_mask"), (nodes,), 2, np.bool_),
            (("edge_attr",), (edges,), 2, np.float32),
            (("edge_measured",), (edges,), 2, np.bool_),
            (("global_features",), (), 1, np.float32),
            (("global_measured", "model_action_mask"), (), 1, np.bool_),
        )
        for name in names
    }
    grid = (moments, len(segments))
    padded["node_mask"] = np.zeros((*grid, nodes), np.bool_)
    padded["edge_mask"] = np.zeros((*grid, edges), np.bool_)
    padded["layer_type"] = np.zeros((*grid, nodes), np.int64)
    padded["edge_index"] = np.zeros((*grid, 2, edges), np.int64)
    for row, segment in enumerate(segments):
        start = 0
        for block in segment.blocks:
            _fill(padded, slice(start, start + len(block)), row, block)
            start += len(block)
    return {name: torch.from_numpy(padded[name]) for name in FIELDS}


def _fill(padded: Arrays, moments: slice, row: int, block: Observations) -> None:
    nodes, edges = block.structure.nodes, block.structure.edges
    for name, column in block.columns():
        size = nodes if name in _PER_NODE else edges
        if name in _PER_GRAPH:
            padded[name][moments, row] = column
        else:
            padded[name][moments, row, :size] = column
    padded["node_mask"][moments, row, :nodes] = True
    padded["edge_mask"][moments, row, :edges] = True
    padded["layer_type"][moments, row, :nodes] = block.structure.layer_type
    padded["edge_index"][moments, row, :, :edges] = block.structure.edge_index


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
