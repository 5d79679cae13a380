"""What the leading rank tells the others to do, and how they answer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import msgpack
import numpy as np
import torch

__all__ = ["Ballot", "Order", "OrderKind", "packed_activity", "unpacked_activity"]


class OrderKind(StrEnum):
    """What is to be done on all ranks."""

    APPLY = "apply"
    """Apply a decision; voted on."""
    CONCLUDE = "conclude"
    """End the trial with an outcome; voted on."""
    CAPTURE = "capture"
    """Take a snapshot as a candidate."""
    PROMOTE = "promote"
    """The candidate is the last known good snapshot now."""
    ADJOURN = "adjourn"
    """Go on training."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order."""

    kind: OrderKind
    step: int
    """Optimiser steps done; of a promoted candidate when it was taken."""
    decision: bytes = b""
    activity: Mapping[int, bytes] = field(default_factory=dict)
    """What the leader has measured of the target's units (`packed_activity`)."""
    good: int | None = None
    """Step of the leader's last known good snapshot."""
    outcome: str = ""
    reason: str = ""

    def to_bytes(self) -> bytes:
        """On the wire: a msgpack map."""
        return _packed(asdict(self))

    @classmethod
    def from_bytes(cls, word: bytes) -> "Order":
        """The inverse.

        Raises:
            TypeError: it is no map.
            ValueError: it is no order.
        """
        fields = _unpacked(word)
        return cls(**fields | {"kind": OrderKind(fields["kind"])})


@dataclass(frozen=True, slots=True)
class Ballot:
    """A rank's answer to an order."""

    objection: str
    """Why it could not carry it out; empty if it has."""
    before: str
    """Checksum of its state before (`run_checksum`)."""
    after: str
    """And after."""

    def to_bytes(self) -> bytes:
        """On the wire: a msgpack map."""
        return _packed(asdict(self))

    @classmethod
    def from_bytes(cls, word: bytes) -> "Ballot":
        """The inverse."""
        return cls(**_unpacked(word))


def packed_activity(activity: Mapping[int, torch.Tensor]) -> dict[int, bytes]:
    """Mean absolute activations per unit by layer, as little-endian single precision."""
    return {
        layer_id: units.detach().float().cpu().numpy().astype("<f4").tobytes()
        for layer_id, units in activity.items()
    }


def unpacked_activity(packed: Mapping[int, bytes]) -> dict[int, torch.Tensor]:
    """The inverse, on the CPU: each rank must compute with the same numbers in the same way."""
    return {
        layer_id: torch.from_numpy(np.frombuffer(units, "<f4").astype(np.float32))
        for layer_id, units in packed.items()
    }


def _packed(fields: Mapping[str, Any]) -> bytes:
    return bytes(msgpack.packb(fields))


def _unpacked(word: bytes) -> dict[str, Any]:
    fields = msgpack.unpackb(word, strict_map_key=False)
    if not isinstance(fields, dict):
        raise TypeError(f"expected a map, got {type(fields).__name__}")
    return fields
