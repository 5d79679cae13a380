"""The charts of the report: well-formed, with gaps where nothing was measured."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bench.charts import MAX_POINTS, Mark, line_chart

POLYLINE = re.compile(r'<polyline class="series-(\d)" points="([^"]*)"')


def parse(figure):
    return ElementTree.fromstring(figure)  # noqa: S314 - our own output


def test_a_gap_stays_a_gap():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 3.0)]
    runs = POLYLINE.findall(line_chart("t", {"a": points}))
    assert [len(run.split()) for _series, run in runs] == [2, 1]


def test_logarithms_leave_out_what_has_none():
    runs = POLYLINE.findall(line_chart("t", {"a": [(0, 1.0), (1, 0.0), (2, 10.0)]}, log=True))
    assert len(runs) == 2


def test_text_is_escaped_and_marks_carry_theirs():
    figure = line_chart("<b>", {"<x>": [(0, 1), (9, 2)]}, marks=[Mark(3, "<why>", "fault")])
    parse(figure)
    assert "&lt;why&gt;" in figure
    assert "<why>" not in figure


def test_nothing_measured_is_said():
    assert "nothing measured" in line_chart("t", {"a": [(0, math.nan)]})
    assert "nothing measured" in line_chart("t", {})


@pytest.mark.parametrize("position", [0, 777, 4999])
def test_thinning_keeps_the_spike(position):
    points = [(x, 1.0) for x in range(5000)]
    points[position] = (position, 100.0)
    [(_series, run)] = POLYLINE.findall(line_chart("t", {"a": points}))
    heights = [float(point.split(",")[1]) for point in run.split()]
    assert len(heights) <= MAX_POINTS
    assert min(heights) < max(heights) - 100


values = st.floats() | st.floats(1e-30, 1e30)


@given(st.lists(st.tuples(st.integers(0, 10**6), values), max_size=30), st.booleans())
def test_any_numbers_give_well_formed_finite_coordinates(points, log):
    figure = line_chart("t", {"a": sorted(points, key=lambda point: point[0])}, log=log)
    parse(figure)
    assert "nan" not in figure
    assert "inf" not in figure
