"""Charts of figures and their intervals."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.interval_charts import COLUMNS, IntervalChart

UNKNOWN = Figure(math.nan, math.nan, math.nan, 0)
CHART = IntervalChart(
    "<shares>",
    {"F1": {"rules": Figure(0.5, 0.25, 0.75, 4), "learned": UNKNOWN}, "F10": {"rules": UNKNOWN}},
)


def test_the_figure_stands_in_its_interval():
    axis, first, *_ = CHART.text().splitlines()
    line = first[first.index("|") + 1 : first.rindex("|")]
    assert line == " " * 10 + "-" * 10 + "o" + "-" * 10 + " " * 10
    assert first.endswith("| 0.50 of 4")
    assert first.startswith("F1   rules  ")
    assert axis.index("0") == first.index("|") + 1
    assert len(axis) == first.rindex("|")


def test_what_is_unknown_has_no_mark():
    lines = CHART.text().splitlines()[2:]
    assert [line[line.index("|") :] for line in lines] == [f"|{' ' * COLUMNS}| –"] * 2


def test_nothing_at_all_is_an_empty_chart():
    assert "o" not in IntervalChart("none", {}).text()
    ElementTree.fromstring(IntervalChart("none", {}).svg())  # noqa: S314 - our own output


def test_the_picture_has_a_mark_for_each_known_figure():
    picture = CHART.svg()
    ElementTree.fromstring(picture)  # noqa: S314 - our own output
    assert picture.count("<circle") == 1
    assert picture.count('<line class="series-0"') == 1
    assert "&lt;shares&gt;" in picture


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(0, 5), st.floats(-3, 3), st.floats(0.1, 5))
def test_what_lies_beyond_the_axis_is_drawn_at_its_end(value, below, above, low, span):
    chart = IntervalChart(
        "t", {"g": {"s": Figure(value, value - below, value + above, 1)}}, low, low + span
    )
    line = chart.text().splitlines()[1].split("|")[1]
    assert len(line) == COLUMNS
    place = line.index("o")
    share = min(1.0, max(0.0, (value - low) / span))
    assert place == pytest.approx(share * (COLUMNS - 1), abs=0.5 + 1e-6)
    x = float(re.search(r'cx="([\d.]+)"', chart.svg())[1])
    marks = [float(one) for one in re.findall(r'class="grid" x1="([\d.]+)"', chart.svg())]
    assert x == pytest.approx(marks[0] + share * (marks[-1] - marks[0]), abs=0.11)
