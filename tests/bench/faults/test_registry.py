"""Names are unique, what is unknown is said, and a user's file adds to the registers."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tamiyo.bench.faults import FAULTS, Cell, all_cells, load_plugin, play
from tamiyo.bench.faults.registry import PluginError, Registry

PLUGIN = """
from dataclasses import replace
from torch import nn
from tamiyo.bench.faults import *
from sklearn.datasets import make_moons

ARCHITECTURES.add(Architecture(
    "linear",
    lambda network: nn.Sequential(nn.Linear(*network.shape, 8), nn.ReLU(),
                                  nn.Linear(8, network.classes)),
    lambda source: source.name == "moons",
    widths=(8,), optimizer="sgd", learning_rate=0.1, steps=60,
))
DATA_SOURCES.add(DataSource("moons", lambda: make_moons(300, noise=0.1, random_state=0), (2,)))
FAULTS.add(Fault(
    "X1", "rate 0", lambda recipe: replace(recipe, learning_rate=0.0),
    applies=lambda architecture, source: architecture.name == "linear",
))


class Restless(Companion):
    def before_step(self):
        self.passes += 1


POLICIES.add(Policy("restless", Restless))
"""


@dataclass(frozen=True)
class Thing:
    name: str


def test_items_are_found_by_name_in_order():
    registry = Registry("thing")
    first = registry.add(Thing("one"))
    registry.add(Thing("two"))
    assert list(registry) == ["one", "two"]
    assert len(registry) == 2
    assert registry.find("one") is registry["one"] is first


def test_a_name_is_taken_once_and_an_unknown_one_is_said():
    registry = Registry("thing")
    registry.add(Thing("one"))
    with pytest.raises(ValueError, match="there is a thing 'one' already"):
        registry.add(Thing("one"))
    with pytest.raises(ValueError, match="unknown thing 'two'; there are one"):
        registry.find("two")


def test_what_a_file_of_the_users_registers_runs_like_the_rest(tmp_path, registers):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    load_plugin(path)
    cell = Cell("X1:rate 0", "linear", "moons")
    assert cell in set(all_cells())
    faulty, healthy = play(cell, "restless", 0), play(cell.healthy, "no-op", 0)
    assert (faulty.kind, faulty.passes, faulty.problems) == ("X1", 60, ())
    assert faulty.accuracy < 0.8 < healthy.accuracy
    assert "X1:rate 0" in FAULTS


def test_the_file_in_the_documentation_runs_as_written(tmp_path, registers):
    page = Path(__file__).parents[3] / "docs" / "faults.md"
    [text] = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "documented.py"
    path.write_text(text)
    load_plugin(path)
    frozen = Cell("F14:frozen", "tiny", "moons")
    alone, warmed = play(frozen, "no-op", 0), play(frozen, "warmer", 0)
    assert alone.accuracy < warmed.accuracy
    assert play(frozen.healthy, "no-op", 0).accuracy > 0.8


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nothing.py", None, "is no Python file"),
        ("broken.py", "1 / 0", "ZeroDivisionError"),
        (
            "taken.py",
            "from tamiyo.bench.faults import *\nDATA_SOURCES.add(DataSource('digits', None, (2,)))",
            "already",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_said(tmp_path, registers, name, text, said):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(PluginError, match=said):
        load_plugin(path)
