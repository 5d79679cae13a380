"""Ways of being watched: all combinations, and options that `attach` understands."""

from itertools import product

import pytest

from tamiyo.bench.transfer.watching import READINGS, watching


@pytest.mark.parametrize("first", [0, 5])
def test_forty_eight_runs_have_every_combination(first):
    names = [reading.name for reading in READINGS]
    ways = [watching(number) for number in range(first, first + 48)]
    found = {(way.reading, way.reports, way.length_known, way.late) for way in ways}
    assert found == set(product(names, (False, True), (False, True), (False, True)))
    assert sum(way.late for way in ways) == 16


def test_who_attaches_late_counts_what_is_left():
    late = next(way for n in range(48) if (way := watching(n)).late and way.length_known)
    early = next(way for n in range(48) if not (way := watching(n)).late and way.length_known)
    assert (late.first_step(800), early.first_step(800)) == (200, 0)
    assert (late.options(800)["total_steps"], early.options(800)["total_steps"]) == (600, 800)


def test_a_length_that_is_not_known_is_not_told():
    way = next(way for n in range(48) if not (way := watching(n)).length_known)
    assert way.options(800)["total_steps"] is None


def test_only_the_default_leaves_measuring_to_the_clock():
    by_clock = [reading.name for reading in READINGS if "probe_every" not in reading.options]
    assert by_clock == ["by default"]
