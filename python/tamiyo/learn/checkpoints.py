"""The state of a training on disk: safetensors and JSON in a folder that appears all at once."""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

__all__ = [
    "TrainingCheckpoints",
    "TrainingState",
    "joined",
    "load_moments",
    "moments_of",
    "parted",
]

TENSORS, MANIFEST = "state.safetensors", "state.json"
FORMAT = "tamiyo-training"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that the rest of a training depends on."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    """JSON values."""


def joined(**groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of several groups in one mapping, each named `group.name`."""
    return {f"{group}.{name}": t for group, own in groups.items() for name, t in own.items()}


def parted(tensors: Mapping[str, Tensor]) -> defaultdict[str, dict[str, Tensor]]:
    """The groups that `joined` was given; those that are missing are empty."""
    groups: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for full, tensor in tensors.items():
        group, _, name = full.partition(".")
        groups[group][name] = tensor
    return groups


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, named `index.moment`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": t for index, own in state.items() for name, t in own.items()}


def load_moments(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Give an optimiser back what `moments_of` took, and its parameter groups' settings."""
    state = {int(index): own for index, own in parted(tensors).items()}
    kept = optimizer.state_dict()["param_groups"] if groups is None else groups
    optimizer.load_state_dict({"state": state, "param_groups": kept})


class TrainingCheckpoints:
    """Checkpoints of one training, newest last.

    A checkpoint is written beside the others, flushed, and renamed, so that a process that is
    killed at any moment leaves the older ones whole. A damaged one is passed over.

    Args:
        directory: Where they are; made when absent.
        keep: How many of them.
    """

    def __init__(self, directory: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.directory = Path(directory)
        self.keep = keep
        self.directory.mkdir(parents=True, exist_ok=True)

    def write(self, iteration: int, state: TrainingState) -> Path:
        """Keep a state under the number of its iteration."""
        final = self.directory / f"iteration-{iteration:08d}"
        partial = final.with_name(final.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        content = save({name: t.detach().cpu().contiguous() for name, t in state.tensors.items()})
        manifest = {
            "format": FORMAT,
            "sha256": hashlib.sha256(content).hexdigest(),
            "values": state.values,
        }
        _flush(partial / TENSORS, content)
        _flush(partial / MANIFEST, json.dumps(manifest).encode())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush_directory(self.directory)
        for old in self._found()[: -self.keep]:
            shutil.rmtree(old)
        return final

    def newest(self) -> TrainingState | None:
        """The newest state that is whole, or `None`."""
        states = (_read(path) for path in reversed(self._found()))
        return next((state for state in states if state is not None), None)

    def _found(self) -> list[Path]:
        return sorted(
            path
            for path in self.directory.glob("iteration-*")
            if path.is_dir() and not path.name.endswith(".part")
        )


def _read(path: Path) -> TrainingState | None:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        content = (path / TENSORS).read_bytes()
        if manifest["sha256"] != hashlib.sha256(content).hexdigest():
            return None
        return TrainingState(load(content), manifest["values"])
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _flush(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
