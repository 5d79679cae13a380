"""Control messages on the wire: bounded msgpack maps that become validated models, or a refusal.

Telemetry batches never pass through here; the Rust core decodes those. Control messages are few,
so Python can afford to check everything that msgpack itself lets through: extension types,
duplicate keys, non-finite numbers and deep nesting.
"""

import math
from typing import Any, Self

import msgpack
from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["MAX_DEPTH", "MAX_MESSAGE_BYTES", "SCHEMA_VERSION", "ControlMessage", "WireError"]

SCHEMA_VERSION = 1
MAX_MESSAGE_BYTES = 4 << 20
MAX_DEPTH = 8


class WireError(ValueError):
    """A message that is refused; the text says why."""


class ControlMessage(BaseModel):
    """Base of everything that travels on a control stream or as model-level telemetry.

    Models are immutable and ignore fields they do not know, so that a newer peer can add some;
    another schema version (`v`) is refused.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """The message as one msgpack map; fields without a value are left out."""
        body = {"v": SCHEMA_VERSION, **self.model_dump(mode="json", exclude_none=True)}
        return bytes(msgpack.packb(body, use_bin_type=True))

    @classmethod
    def from_bytes(cls, message: bytes) -> Self:
        """Decode and validate.

        Raises:
            WireError: the message is not a well-formed map of this schema version, or a field
                is missing or out of range.
        """
        body = _unpack(message)
        if body.get("v") != SCHEMA_VERSION:
            raise WireError(
                f"unknown version: {body.get('v')!r}, this side speaks {SCHEMA_VERSION}"
            )
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise WireError(f"{cls.__name__}.{where}: {first['msg']}") from None


def _unpack(message: bytes) -> dict[str, Any]:
    if len(message) > MAX_MESSAGE_BYTES:
        raise WireError(f"too large: {len(message)} bytes, at most {MAX_MESSAGE_BYTES}")
    try:
        body = msgpack.unpackb(
            message,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_without_duplicates,
            ext_hook=_refuse_extension,
        )
    except WireError:
        raise
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"malformed: {error or type(error).__name__}") from None
    if not isinstance(body, dict):
        raise WireError(f"malformed: expected a map, got {type(body).__name__}")
    _check_values(body, MAX_DEPTH)
    return body


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise WireError("duplicate key")
    return result


def _refuse_extension(code: int, _data: bytes) -> None:
    raise WireError(f"extension type {code}")


def _check_values(value: object, depth: int) -> None:
    if depth < 0:
        raise WireError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError("non-finite number")
    if isinstance(value, dict):
        for item in value.values():
            _check_values(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, depth - 1)
