"""Short values by which processes find out that they hold the same model in the same state."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tamiyo.host.layers import Layers
from tamiyo.host.training import TrainingRun, unwrap

__all__ = ["run_checksum", "structure_checksum"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 20
"""Entries that are widened to 64 bits at a time."""


def structure_checksum(layers: Layers, optimizer: torch.optim.Optimizer) -> str:
    """Of layers, their ids, shapes and data flow, and of the optimiser's kind and groups."""
    flows = layers.flow.edges if layers.flow is not None else {}
    groups = [[list(p.shape) for p in group["params"]] for group in optimizer.param_groups]
    seen = {
        "layers": [
            [name, [list(p.shape) for p in layers.parameters(layer_id)]]
            for layer_id, name in enumerate(layers.names)
        ],
        "flow": [[source, target, flow.joins] for (source, target), flow in flows.items()],
        "optimizer": [type(optimizer).__name__, groups],
    }
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def run_checksum(run: TrainingRun) -> str:
    """Of all parameters, the optimiser's state and its learning rates, bit for bit.

    Buffers are left out: running statistics of a batch normalisation are each process's own
    between two forward passes. Sums run in integers modulo 2^64, once plain and once weighted by
    position, so that they do not depend on the order of summation; one transfer leaves each device.
    """
    parts: list[str] = []
    sums: dict[torch.device, list[torch.Tensor]] = {}
    for name, value in _state(run):
        if isinstance(value, torch.Tensor):
            parts.append(f"{name} {tuple(value.shape)} {value.dtype}")
            sums.setdefault(value.device, []).extend(_sums(value.detach()))
        else:
            parts.append(f"{name} {value!r}")
    digest = hashlib.sha256("\n".join(parts).encode())
    for totals in sums.values():
        digest.update(torch.stack(totals).cpu().numpy().tobytes())
    return digest.hexdigest()


def _state(run: TrainingRun) -> Iterator[tuple[str, Any]]:
    yield from unwrap(run.model).named_parameters()
    for number, group in enumerate(run.optimizer.param_groups):
        yield f"{number}.lr", group.get("lr")
        for place, parameter in enumerate(group["params"]):
            state = run.optimizer.state.get(parameter, {})
            yield from _entries(f"{number}.{place}", state.items())


def _entries(prefix: str, items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for key, value in items:
        if isinstance(value, torch.Tensor | bool | int | float | None):
            yield f"{prefix}.{key}", value


def _sums(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = tensor.coalesce().values() if tensor.is_sparse else tensor
    flat = flat.resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    words = flat.view(_INTEGERS[flat.element_size()])
    plain = torch.zeros((), dtype=torch.int64, device=words.device)
    weighted = plain.clone()
    for start in range(0, len(words), _CHUNK):
        chunk = words[start : start + _CHUNK].to(torch.int64)
        places = torch.arange(start + 1, start + 1 + len(chunk), device=words.device)
        plain += chunk.sum()
        weighted += (chunk * places).sum()
    return plain, weighted
