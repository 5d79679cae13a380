"""Rows of an experiment, a line each: what an interrupted one had made is not made again."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from tamiyo.policy.checkpoint import replace_file

__all__ = ["RowFile", "read_lines"]


class Line(Protocol):
    """A row of any experiment."""

    @property
    def key(self) -> Hashable:
        """What was run; of two rows with the same key the newer one counts."""

    def to_line(self) -> str:
        """The row as text that ends with the only newline in it."""


Row = TypeVar("Row", bound=Line)


def read_lines(path: Path, from_line: Callable[[str], Row]) -> list[Row]:
    """The rows of a file, nothing if there is none; a line that was cut off does not count.

    Args:
        path: The file.
        from_line: Makes a row of a line.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [from_line(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class RowFile(Generic[Row]):
    """All rows of a file by their key, and a way to add more.

    Args:
        path: The file; made when absent, with its folder.
        from_line: Makes a row of a line.
    """

    def __init__(self, path: Path, from_line: Callable[[str], Row]) -> None:
        self._path = path
        rows = read_lines(path, from_line)
        self.rows: dict[Hashable, Row] = {row.key: row for row in rows}
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line that was cut off must not run into the next one.
        replace_file(path, "".join(row.to_line() for row in rows).encode())

    @contextmanager
    def adding(self) -> Iterator[Callable[[Row], None]]:
        """Opens the file; what is called with a row has kept and written it when it returns."""
        with self._path.open("a", encoding="utf-8") as lines:

            def add(row: Row) -> None:
                self.rows[row.key] = row
                lines.write(row.to_line())
                lines.flush()

            yield add
