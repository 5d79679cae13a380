"""Turns with and without Tamiyo tell what attaching costs."""

import pytest

from tamiyo.bench import overhead


@pytest.mark.slow
def test_models_take_turns(monkeypatch):
    monkeypatch.setattr(overhead, "WARM_UP_SECONDS", 0.2)
    cost = overhead.measure(next(iter(overhead.MODELS)), "every step", seconds=0.1)
    assert cost.samples >= cost.rounds >= 2
    assert 0 < cost.probe < cost.host < 1
    assert cost.low <= cost.ratio <= cost.high
    (line,) = overhead.table([cost]).splitlines()[2:]
    assert line.startswith(f"| {cost.model} |")


def test_unknown_models_are_refused(capsys):
    with pytest.raises(SystemExit):
        overhead.main(["--model", "no such"])
    assert "no such model" in capsys.readouterr().err
