"""Segments as a few large arrays, and back: what a checkpoint holds of a memory."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tamiyo.learn.observations import GraphStructure, Observations
from tamiyo.learn.segments import Segment

__all__ = ["pack", "unpack"]

Arrays = dict[str, npt.NDArray[Any]]


def pack(segments: Sequence[Segment]) -> Arrays:
    """Every structure once, and the moments on it one after the other.

    Returns:
        `version` and `steps` [S]; the columns of all decisions, one segment after the other;
        `blocks` [B, 3]: segment, structure and number of moments; and for each structure k its
        arrays and the columns of its moments as `k.name`.
    """
    arrays: Arrays = {
        "version": np.array([segment.policy_version for segment in segments], np.int64),
        "steps": np.array([len(segment) for segment in segments], np.int64),
    }
    if not segments:
        return arrays
    for name, _ in segments[0].columns():
        arrays[name] = np.concatenate([getattr(segment, name) for segment in segments])
    number: dict[str, int] = {}
    moments: dict[int, list[Observations]] = defaultdict(list)
    table = []
    for at, segment in enumerate(segments):
        for block in segment.blocks:
            structure = number.setdefault(block.structure.key, len(number))
            moments[structure].append(block)
            table.append((at, structure, len(block)))
    arrays["blocks"] = np.array(table, np.int64)
    for structure, blocks in moments.items():
        shared = blocks[0].structure
        arrays[f"{structure}.edge_index"] = shared.edge_index.copy()
        arrays[f"{structure}.layer_type"] = shared.layer_type.copy()
        for name, _ in blocks[0].columns():
            column = np.concatenate([getattr(block, name) for block in blocks])
            arrays[f"{structure}.{name}"] = column
    return arrays


def unpack(arrays: Mapping[str, npt.NDArray[Any]]) -> list[Segment]:
    """The segments that `pack` packed; they share structures, and no memory with `arrays`.

    Raises:
        KeyError, ValueError: arrays that are missing or do not belong together.
    """
    if not len(arrays["steps"]):
        return []
    blocks: dict[int, list[Observations]] = defaultdict(list)
    for at, block in _blocks(arrays):
        blocks[at].append(block)
    segments, end = [], 0
    for at, (steps, version) in enumerate(zip(arrays["steps"], arrays["version"], strict=True)):
        start, end = end, end + int(steps)
        observations, *successor = blocks[at]
        columns = {name: arrays[name][start:end] for name in Segment.COLUMNS}
        segments.append(
            Segment(
                observations=observations,
                successor=successor[0] if successor else None,
                policy_version=int(version),
                **columns,
            )
        )
    return segments


def _blocks(arrays: Mapping[str, npt.NDArray[Any]]) -> Iterable[tuple[int, Observations]]:
    structures: dict[int, GraphStructure] = {}
    used: dict[int, int] = defaultdict(int)
    for at, structure, count in arrays["blocks"].tolist():
        if structure not in structures:
            structures[structure] = GraphStructure(
                arrays[f"{structure}.edge_index"], arrays[f"{structure}.layer_type"]
            )
        moments = slice(used[structure], used[structure] + count)
        used[structure] += count
        columns = {name: arrays[f"{structure}.{name}"][moments] for name in Observations.COLUMNS}
        yield at, Observations(structures[structure], **columns)
