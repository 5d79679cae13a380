"""The history of a training that was killed while it wrote a line."""

import json

from tamiyo.bench.policy_training.history import FILE, History, learning_curve


def test_a_line_that_was_cut_off_is_written_again(tmp_path):
    history = History(tmp_path)
    for epoch in (1, 2):
        history.add("clone", epoch, {"imitation": 1.0 / epoch, "safety": float("nan")})
    whole = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(whole[:-10])
    resumed = History(tmp_path)
    for epoch in (1, 2, 3):
        resumed.add("clone", epoch, {"imitation": 1.0 / epoch})
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [row["done"] for row in rows] == [1, 2, 3]
    assert (tmp_path / FILE).read_text().startswith(whole)
    assert "| 3 | 0.3333 | – |" in learning_curve(tmp_path)
