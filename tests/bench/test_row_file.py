"""Rows in a file: what was written counts, and what was cut off does not."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bench.row_file import RowFile, read_lines


@dataclass(frozen=True)
class Plain:
    key: int
    text: str

    def to_line(self):
        return json.dumps([self.key, self.text]) + "\n"

    @classmethod
    def from_line(cls, line):
        return cls(*json.loads(line))


ROWS = st.lists(st.builds(Plain, st.integers(0, 5), st.text()))


@given(ROWS, ROWS)
def test_rows_come_back_and_newer_ones_count(tmp_path_factory, before, after):
    path = tmp_path_factory.mktemp("rows") / "folder" / "rows.jsonl"
    for part in (before, after):
        with RowFile(path, Plain.from_line).adding() as add:
            for row in part:
                add(row)
    assert RowFile(path, Plain.from_line).rows == {row.key: row for row in (*before, *after)}
    assert read_lines(path, Plain.from_line) == [*before, *after]


def test_a_row_that_was_added_is_in_the_file_whatever_happens_then(tmp_path):
    file = RowFile(tmp_path / "rows.jsonl", Plain.from_line)
    with pytest.raises(KeyboardInterrupt), file.adding() as add:
        add(Plain(1, "whole"))
        assert read_lines(tmp_path / "rows.jsonl", Plain.from_line) == [Plain(1, "whole")]
        raise KeyboardInterrupt


def test_a_line_that_was_cut_off_is_dropped_and_does_not_run_into_the_next(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(Plain(1, "whole").to_line() + Plain(2, "cut off").to_line()[:-4])
    file = RowFile(path, Plain.from_line)
    assert list(file.rows) == [1]
    with file.adding() as add:
        add(Plain(3, "next"))
    assert read_lines(path, Plain.from_line) == [Plain(1, "whole"), Plain(3, "next")]


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert read_lines(tmp_path / "rows.jsonl", Plain.from_line) == []
