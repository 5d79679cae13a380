"""Cohorts by name."""

import pytest

from tamiyo.bench.evaluation.lineup import COHORTS, Lineup
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.checkpoint import CheckpointError


def test_cohorts_are_in_one_order_and_the_idle_one_is_always_in():
    assert Lineup(("oracle", "rules")).names == ("no-op", "rules", "oracle")
    assert Lineup(()).names == ("no-op",)


def test_every_cohort_has_a_player_of_its_name(checkpoint):
    lineup = Lineup(("clone", *COHORTS), checkpoint, {"clone": checkpoint})
    place = COHORTS.index("learned")
    expected = (*COHORTS[:place], "clone", *COHORTS[place:])
    assert tuple(player.name for player in lineup.players()) == expected
    version = EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint).version
    assert lineup.versions() == {"clone": version, "learned": version}


def test_what_cannot_play_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown cohort 'ruels'"):
        Lineup(("ruels",))
    for name in ("learned", "default"):
        with pytest.raises(ValueError, match="needs a checkpoint"):
            Lineup((name,))
    for name in ("rules", "a.b", "", "a - b"):
        with pytest.raises(ValueError, match="cannot be called"):
            Lineup((), others={name: tmp_path})
    with pytest.raises(CheckpointError):
        Lineup(("learned",), learned=tmp_path).players()
