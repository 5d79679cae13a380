"""What can be written, and that trying it leaves nothing behind."""

import pytest

from tamiyo.bench.outputs import check_writable


def test_a_new_file_is_not_begun_and_an_old_one_not_touched(tmp_path):
    check_writable(tmp_path / "new" / "rows.jsonl")
    assert not list((tmp_path / "new").iterdir())
    old = tmp_path / "old"
    old.write_text("kept")
    check_writable(old)
    assert old.read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder", "it is a folder"),
        ("file/rows.jsonl", "there is a file where a folder should be"),
        ("file/deeper/rows.jsonl", "there is a file where a folder should be"),
    ],
)
def test_it_says_what_cannot_be_written(tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"cannot write {tmp_path / name}: {why}"):
        check_writable(tmp_path / name)
