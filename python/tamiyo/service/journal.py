"""The decision journal: append-only JSON lines, each carrying the hash of the one before it.

The chain makes tampering evident and a torn last line detectable. A line is flushed to the disk
before the decision that it records is published, so no decision exists that the journal lacks.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

__all__ = ["DecisionJournal", "JournalError", "read_journal"]

GENESIS = "0" * 64


class JournalError(ValueError):
    """A journal whose chain of hashes is broken; the text says at which line."""


class DecisionJournal:
    """Appends events to one file.

    Args:
        path: The file; its folder is made. An existing journal is verified and continued.

    Raises:
        JournalError: the existing file is damaged anywhere but in an unfinished last line, which
            is what a crash leaves and is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._last_hash = self._recover()
        self._file = path.open("ab")

    def append(self, event: str, /, **fields: Any) -> None:
        """Write one event and have it on the disk before returning.

        Numbers that JSON cannot express (NaN, infinities) are written as `null`.
        """
        with self._lock:
            entry = {"event": event, **_plain(fields), "previous": self._last_hash}
            text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)
            line = text.encode()
            self._file.write(line + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._last_hash = _digest(line)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._file.close()

    def _recover(self) -> str:
        if not self.path.exists():
            return GENESIS
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            with self.path.open("r+b") as file:
                file.truncate(complete)
        last = GENESIS
        for line, _entry in _verified_lines(self.path):
            last = _digest(line)
        return last


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a journal, in order, each checked against the chain.

    Raises:
        JournalError: a line is not JSON or does not follow from the one before it.
    """
    return (entry for _line, entry in _verified_lines(path))


def _verified_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    previous = GENESIS
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.rstrip(b"\n")
            try:
                entry = json.loads(line)
            except ValueError:
                raise JournalError(f"{path}:{number}: not JSON") from None
            if not isinstance(entry, dict) or entry.get("previous") != previous:
                raise JournalError(f"{path}:{number}: does not follow from the line before it")
            previous = _digest(line)
            yield line, entry


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value
