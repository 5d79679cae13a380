"""What a training measured on its way, kept beside it, and shown as a learning curve."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tamiyo.learn.metrics import read_rows
from tamiyo.policy.checkpoint import replace_file

__all__ = ["History", "learning_curve"]

FILE = "history.jsonl"


class History:
    """One row for every unit of every stage; a training that goes on does not write twice.

    Args:
        directory: Of the training.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        rows = read_rows(self._path)
        # A line that was cut off must not run into the next one.
        replace_file(self._path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._written = {(row["stage"], row["done"]) for row in rows}

    def add(self, stage: str, done: int, figures: Mapping[str, float]) -> None:
        """Keep what was measured; NaN, not measured, is left out."""
        known = {name: value for name, value in figures.items() if math.isfinite(value)}
        if not known or (stage, done) in self._written:
            return
        self._written.add((stage, done))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "done": done, **known}) + "\n")


_CLONING: Sequence[tuple[str, str]] = (
    ("imitation", "imitation loss"),
    ("value", "value loss"),
    ("safety", "safety loss"),
)
_STAGES: Sequence[tuple[str, str, Sequence[tuple[str, str]]]] = (
    ("first-clone", "epoch", _CLONING),
    ("clone", "epoch", _CLONING),
    (
        "refinement",
        "iteration",
        (
            ("return", "mean return"),
            ("explained_variance", "variance explained"),
            ("kl", "KL of the step"),
            ("anchor_kl", "KL from the clone"),
        ),
    ),
)


def learning_curve(directory: Path) -> str:
    """The course of a training as Markdown tables.

    Raises:
        ValueError: nothing was written there.
    """
    rows = read_rows(directory / FILE)
    if not rows:
        raise ValueError(f"{directory} holds no history of a training")
    parts = []
    for stage, unit, columns in _STAGES:
        own = [row for row in rows if row["stage"] == stage]
        if own:
            head = " | ".join((unit, *(title for _, title in columns)))
            rule = "|".join(["--:"] * (1 + len(columns)))
            body = [
                " | ".join([str(row["done"]), *(_number(row.get(name)) for name, _ in columns)])
                for row in own
            ]
            lines = "\n".join(f"| {line} |" for line in (head, *body))
            first, _, rest = lines.partition("\n")
            parts.append(f"**{stage}**\n\n{first}\n|{rule}|\n{rest}\n")
    return "\n".join(parts)


def _number(value: float | str | None) -> str:
    return "–" if value is None else f"{float(value):.4f}"
