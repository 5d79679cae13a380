"""The journal: what is written is read back, a cut tail is mended, tampering is found."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.service import DecisionJournal, JournalError, read_journal

EVENTS = [("proposed", {"id": "a", "x": [1.5, None]}), ("result", {"id": "a"}), ("stopped", {})]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "journal.jsonl"
    journal = DecisionJournal(path)
    for event, fields in EVENTS:
        journal.append(event, **fields)
    journal.close()
    return path


def events(path):
    return [
        (entry.pop("event"), {key: entry[key] for key in entry if key != "previous"})
        for entry in read_journal(path)
    ]


def test_what_is_written_is_read_back(path):
    assert events(path) == EVENTS


def test_a_journal_is_continued(path):
    journal = DecisionJournal(path)
    journal.append("started")
    journal.close()
    assert events(path) == [*EVENTS, ("started", {})]


def test_numbers_that_json_lacks_become_null(tmp_path):
    journal = DecisionJournal(tmp_path / "j")
    column = np.array([1.0, np.nan], np.float32)
    journal.append("e", a=math.inf, b={"c": column}, d=np.float32(2))
    journal.close()
    assert events(tmp_path / "j") == [("e", {"a": None, "b": {"c": [1.0, None]}, "d": 2.0})]


def test_every_cut_of_the_last_line_is_mended_and_nothing_else_lost(path):
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start + 1, len(whole)):
        path.write_bytes(whole[:cut])
        DecisionJournal(path).close()
        assert events(path) == EVENTS[:-1]


@settings(max_examples=60)
@given(data=st.data())
def test_any_changed_byte_before_the_last_line_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "j"
    journal = DecisionJournal(path)
    for event, fields in EVENTS:
        journal.append(event, **fields)
    journal.close()
    content = bytearray(path.read_bytes())
    end = bytes(content[:-1]).rfind(b"\n")
    content[data.draw(st.integers(0, end))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(JournalError):
        list(read_journal(path))


def test_a_removed_line_is_found(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(JournalError, match=":2: does not follow"):
        DecisionJournal(path)


def test_lines_are_json(path):
    assert all(json.loads(line)["event"] for line in path.read_text().splitlines())
