import json
import math

import pytest

from tamiyo.learn.metrics import MetricsLog


def test_rows_are_kept_in_memory_and_as_json_lines(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.add(0, {"return": 0.5, "loss": float("nan")})
        log.add(1, {"return": 0.75, "loss": 2.0})
    assert [row["return"] for row in log.rows] == [0.5, 0.75]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"iteration": 0, "return": 0.5, "loss": None}
    assert lines[1] == {"iteration": 1, "return": 0.75, "loss": 2.0}


def test_a_resumed_training_has_each_iteration_once(tmp_path):
    with MetricsLog(tmp_path) as log:
        for iteration in range(4):
            log.add(iteration, {"return": float(iteration), "loss": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "ret')  # killed in the middle of a line
    with MetricsLog(tmp_path, iteration=3) as log:
        assert [row["iteration"] for row in log.rows] == [0, 1, 2]
        assert math.isnan(log.rows[0]["loss"])
        log.add(3, {"return": 30.0})
    with MetricsLog(tmp_path, iteration=99) as log:
        assert [row["return"] for row in log.rows] == [0, 1, 2, 30]


def test_without_a_directory_nothing_is_written():
    with MetricsLog(None) as log:
        log.add(0, {"return": 1.0})
    assert log.rows == [{"iteration": 0, "return": 1.0}]
    with pytest.raises(ValueError, match="needs a directory"):
        MetricsLog(None, tensorboard=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_same_numbers(tmp_path):
    name = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(name, reason="tensorboard is an extra")
    with MetricsLog(tmp_path, tensorboard=True) as log:
        log.add(0, {"return": 0.5, "loss": float("nan")})
        log.add(1, {"return": 0.75})
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("return")] == [0.5, 0.75]
    assert events.Tags()["scalars"] == ["return"]
