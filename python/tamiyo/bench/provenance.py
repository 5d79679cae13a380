"""Which code made a policy: a digest of the sources that it depends on."""

import hashlib
from pathlib import Path

import tamiyo

__all__ = ["SOURCES", "environment_digest"]

SOURCES = (
    "envs/observations.py",
    "envs/training",
    "graph/schema.py",
    "learn/imitation",
    "learn/outcomes.py",
    "learn/rewards",
)
"""What defines the runs that a policy learns in, what it sees of them and what it is taught."""


def environment_digest(root: Path | None = None) -> str:
    """SHA-256 of `SOURCES`, in hex: names and contents.

    Args:
        root: Folder of the package; by default that of the one that is running.
    """
    root = Path(tamiyo.__file__).parent if root is None else root
    digest = hashlib.sha256()
    for source in (root / name for name in SOURCES):
        for path in sorted(source.rglob("*.py")) if source.is_dir() else (source,):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
