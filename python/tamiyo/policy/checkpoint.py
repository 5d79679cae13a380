"""Policies on disk: weights as safetensors, everything else as JSON, never pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tamiyo.graph.schema import ACTIONS, LAYER_TYPES, SCHEMA_VERSION

__all__ = ["CheckpointError", "read_checkpoint", "replace_file", "shipped", "write_checkpoint"]

FORMAT = "tamiyo-policy"
WEIGHTS, MANIFEST = "policy.safetensors", "policy.json"
PRETRAINED = Path(__file__).parent / "pretrained"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the text says why."""


def shipped() -> Path | None:
    """Folder of the checkpoint that comes with the package; `None` where none does."""
    return PRETRAINED if (PRETRAINED / MANIFEST).is_file() else None


def write_checkpoint(
    directory: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> str:
    """Write both files, each atomically, the manifest last.

    Args:
        directory: Where to; made when absent.
        tensors: The state dict.
        metadata: JSON values; `config`, `calibration` and `training` are what is read back.

    Returns:
        The SHA-256 of the weights, in hex.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(weights).hexdigest()
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "actions": list(ACTIONS),
        "layer_types": list(LAYER_TYPES),
        "sha256": digest,
        **metadata,
    }
    replace_file(directory / WEIGHTS, weights)
    replace_file(directory / MANIFEST, json.dumps(manifest, indent=2, allow_nan=False).encode())
    return digest


def read_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and manifest.

    Raises:
        CheckpointError: a file is missing or damaged, the weights are not those of the manifest,
            or the checkpoint was made for another schema of the graph.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        weights = (directory / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the checkpoint in {directory}: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{directory} does not hold a policy")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"the policy in {directory} reads graphs of schema version {version}, "
            f"this build makes version {SCHEMA_VERSION}"
        )
    if manifest.get("sha256") != hashlib.sha256(weights).hexdigest():
        raise CheckpointError(f"the weights in {directory} are not those of its manifest")
    try:
        return load(weights), manifest
    except SafetensorError as error:
        raise CheckpointError(f"damaged weights in {directory}: {error}") from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is, at any moment, the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
