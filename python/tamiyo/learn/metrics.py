"""What was measured in each iteration, as JSON lines and, where it is installed, on TensorBoard."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tamiyo.policy.checkpoint import replace_file

__all__ = ["MetricsLog", "read_rows"]


class MetricsLog:
    """One row per iteration, in memory and, with a directory, in `metrics.jsonl`.

    Opening it on what an earlier process wrote keeps the rows before `iteration` and drops what
    came after them, so that a resumed training has each iteration once.

    Args:
        directory: Where the files go; `None` keeps the rows in memory only.
        iteration: The first iteration that is still to come.
        tensorboard: Also write event files there.

    Raises:
        ValueError: TensorBoard without a directory.
        ImportError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, directory: str | Path | None, iteration: int = 0, *, tensorboard: bool = False
    ) -> None:
        if tensorboard and directory is None:
            raise ValueError("TensorBoard needs a directory to write to")
        self.rows: list[dict[str, float]] = []
        self._path = None if directory is None else Path(directory) / "metrics.jsonl"
        self._board = None
        if tensorboard and directory is not None:
            self._board = _summary_writer(Path(directory), iteration)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.rows = [row for row in read_rows(self._path) if row["iteration"] < iteration]
            replace_file(self._path, "".join(_line(row) for row in self.rows).encode())

    def add(self, iteration: int, measured: Mapping[str, float]) -> None:
        """Keep the row of an iteration. NaN, not measured, is null in the file."""
        row = {"iteration": float(iteration), **measured}
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(_line(row))
        if self._board is not None:
            for name, value in measured.items():
                if not math.isnan(value):
                    self._board.add_scalar(name, value, iteration)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            self._board.close()


def _summary_writer(directory: Path, iteration: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional dependency

    return SummaryWriter(str(directory), purge_step=iteration)


def _line(row: Mapping[str, float]) -> str:
    finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(finite) + "\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file whose last line may have been cut off."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found = json.loads(line)
        except ValueError:
            break
        rows.append({name: math.nan if value is None else value for name, value in found.items()})
    return rows
