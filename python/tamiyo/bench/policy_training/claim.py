"""Whose folder it is: a training only goes on where the very same one was begun."""

import json
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tamiyo.bench.evaluation.splits import SPLITS
from tamiyo.bench.outputs import reason
from tamiyo.bench.policy_training.presets import Preset
from tamiyo.bench.provenance import environment_digest
from tamiyo.policy.checkpoint import replace_file

__all__ = ["PACKAGES", "check_lessons", "claim", "find_device", "identity"]

FILE = "training.json"
PACKAGES = ("tamiyo", "torch", "numpy")
LONGEST, MOST = 40, 5
"""Characters of a value, and values, in what is said of a difference."""


def identity(preset: Preset, seed: int, device: torch.device) -> dict[str, Any]:
    """Everything that the numbers of a training depend on, by name; JSON values."""
    return {
        "seed": seed,
        "device": str(device),
        **{name: version(name) for name in PACKAGES},
        "environment": environment_digest(),
        **_fields("preset", preset),
        **_fields("train split", SPLITS["train"].config),
    }


def claim(directory: Path, mine: Mapping[str, Any]) -> None:
    """Write down whose folder it is, or make sure that it is that of the same training.

    Args:
        directory: The folder; made when absent.
        mine: See `identity`.

    Raises:
        ValueError: it holds another training, or cannot be read or written.
    """
    path = directory / FILE
    try:
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(mine, indent=2).encode())
            return
        theirs = dict(json.loads(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"cannot train in {directory}: {reason(error)}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if theirs != mine:
        raise ValueError(
            f"{directory} holds another training: choose another folder. "
            f"What differs: {_differences(theirs, mine)}"
        )


def check_lessons(directory: Path) -> None:
    """Make sure that what was kept of earlier calls is whole.

    Raises:
        ValueError: a file is not; the text says which.
    """
    for path in sorted(directory.glob("*/round-*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it, and the training makes it again"
            ) from None


def find_device(device: torch.device | str) -> torch.device:
    """A device that can be computed on.

    Raises:
        ValueError: there is none of this name, or it does not work here.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the device {str(device)!r} cannot be used: {reason}") from None
    return found


def _fields(prefix: str, settings: Any) -> dict[str, str]:
    return {f"{prefix}: {one.name}": repr(getattr(settings, one.name)) for one in fields(settings)}


def _differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    names = [name for name in {**mine, **theirs} if theirs.get(name) != mine.get(name)]
    said = [
        f"{name} ({_short(theirs.get(name))} there, {_short(mine.get(name))} here)"
        for name in names[:MOST]
    ]
    if len(names) > MOST:
        said.append(f"and {len(names) - MOST} more")
    return ", ".join(said)


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
