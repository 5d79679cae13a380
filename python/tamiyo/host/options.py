"""Checks what a session was asked for, before anything is attached."""

from collections.abc import Mapping
from typing import get_args

from tamiyo.host.desk import Mode

__all__ = ["check_options"]


def check_options(
    mode: str, *, shares: Mapping[str, float], counts: Mapping[str, int | None]
) -> None:
    """Check a session's options.

    Args:
        mode: Must be one of `Mode`.
        shares: By name; each must be in [0, 1].
        counts: By name; each must be at least 1, or not given.

    Raises:
        ValueError: one of them is not what it must be.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {share}")
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
