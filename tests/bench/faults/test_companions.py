"""Each policy does what its source says; none touches a run that it only watches."""

import math
from statistics import fmean, pstdev

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from tamiyo.bench.faults import POLICIES, Subject, Told, play
from tamiyo.bench.faults.companions.plateau import MOST_NORM, PATIENCE, Plateau
from tamiyo.bench.faults.companions.zclip import DECAY, THRESHOLD, WARM_UP, ZClip, ZScore
from tamiyo.contracts import Outcome

norms = st.lists(st.floats(1e-3, 1e3), min_size=WARM_UP, max_size=WARM_UP + 20)


@pytest.fixture
def subject():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
    return Subject(model, torch.optim.SGD(model.parameters(), lr=0.1), 100, "run")


def give_gradients(subject, norm):
    parameters = list(subject.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    total = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    for parameter in parameters:
        parameter.grad.mul_(norm / total)


def gradient_norm(subject):
    return float(torch.nn.utils.get_total_norm([p.grad for p in subject.model.parameters()]))


@given(norms)
@example([1.0, 1.1] * 13 + [50.0, 1.0, 80.0])
def test_zclip_is_the_papers_recursion(history):
    score = ZScore()
    admitted = [score.admit(norm) for norm in history]
    assert admitted[:WARM_UP] == history[:WARM_UP]
    mean, variance = fmean(history[:WARM_UP]), pstdev(history[:WARM_UP]) ** 2
    for norm, used in zip(history[WARM_UP:], admitted[WARM_UP:], strict=True):
        deviation = max(math.sqrt(variance), 1e-12)
        z = (norm - mean) / deviation
        expected = mean + THRESHOLD**2 / z * deviation if z > THRESHOLD else norm
        assert used == pytest.approx(expected, rel=1e-6)
        mean = DECAY * mean + (1 - DECAY) * used
        variance = DECAY * variance + (1 - DECAY) * (used - mean) ** 2


@given(norms)
def test_zclip_never_makes_a_gradient_larger(history):
    score = ZScore()
    assert all(score.admit(norm) <= norm * (1 + 1e-9) for norm in history)


def test_zclip_passes_what_no_factor_mends():
    score = ZScore()
    assert math.isnan(score.admit(math.nan))
    for _ in range(WARM_UP + 5):
        assert score.admit(1.0) == 1.0


def test_zclip_clips_the_gradients_themselves(subject):
    zclip = ZClip()
    zclip.attach(subject)
    for step in range(WARM_UP + 1):
        subject.step = step
        give_gradients(subject, 1 + 0.1 * (step % 2))
        zclip.before_step()
    assert zclip.acts() == []
    give_gradients(subject, 100.0)
    zclip.before_step()
    [act] = zclip.acts()
    assert (act.adaptation, act.step, act.by) == ("clip_gradients", WARM_UP, "zclip")
    assert gradient_norm(subject) == pytest.approx(act.parameters["norm"], rel=1e-4)
    assert gradient_norm(subject) < 2


def test_plateau_clips_and_lowers_the_rate_when_nothing_gets_better(subject):
    plateau = Plateau()
    plateau.attach(subject)
    give_gradients(subject, 50.0)
    plateau.before_step()
    assert gradient_norm(subject) == pytest.approx(MOST_NORM, rel=1e-4)
    for step in range(PATIENCE + 1):
        subject.step = step
        plateau.evaluated(1.0, 0.5)
    assert plateau.acts() == []
    plateau.evaluated(1.0, 0.5)
    [act] = plateau.acts()
    assert (act.adaptation, act.target, act.outcome) == ("scale_learning_rate", (), "kept")
    assert act.parameters["factor"] == pytest.approx(0.1)
    assert subject.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("policy", ["rules", "learned", "oracle"])
def test_a_healthy_run_that_is_only_watched_is_the_same_bit_for_bit(cell, policy):
    alone, watched = play(cell(), "no-op", 0), play(cell(), policy, 0)
    assert watched.acts == ()
    assert watched.problems == ()
    assert watched.checksum == alone.checksum
    assert watched.evaluations == alone.evaluations


@pytest.mark.parametrize("policy", ["rules", "oracle", "redo", "growth"])
def test_runs_under_control_repeat(cell, policy):
    dead = cell("F5:bias -10")
    assert play(dead, policy, 3) == play(dead, policy, 3)


def test_the_oracle_mends_the_layer_that_it_is_told_of(cell):
    dead = cell("F5:bias -10")
    alone, told = play(dead, "no-op", 0), play(dead, "oracle", 0)
    [act] = told.acts
    assert (act.target, told.culprits) == (("2",), ("2", "3"))
    assert (act.adaptation, act.by) == ("reinitialize", "oracle")
    assert told.right
    assert alone.accuracy < 0.8 < told.accuracy


def test_the_oracle_goes_on_with_what_belongs_to_the_cure(cell):
    told = play(cell("F1:rate 3"), "oracle", 0)
    assert [act.adaptation for act in told.acts][:2] == ["scale_learning_rate", "reinitialize"]
    assert told.acts[1].step - told.acts[0].step >= 100
    assert told.right


def test_the_oracle_does_nothing_where_nothing_helps(cell):
    assert play(cell("F10:40 % noise"), "oracle", 0).acts == ()


def test_the_oracle_waits_for_the_fault(cell):
    told = play(cell("F12:half the units 0"), "oracle", 0)
    assert told.onset == 64
    assert all(act.step > told.onset for act in told.acts)


def test_redo_recycles_dead_units_and_growth_grows(cell):
    recycled = play(cell("F5:bias -10"), "redo", 0)
    assert {act.adaptation for act in recycled.acts} == {"reinitialize"}
    assert "2" in recycled.acts[0].target
    grown = play(cell(), "growth", 0)
    assert [act.adaptation for act in grown.acts] == ["widen"]
    assert grown.acts[0].outcome in {Outcome.KEPT, Outcome.ROLLED_BACK}


def test_every_policy_is_fresh_each_time():
    for policy in POLICIES.values():
        one, other = policy.make(), policy.make()
        assert one is not other
        assert one.version == other.version


def test_what_is_told_of_nothing_is_nothing():
    assert (Told().onset, Told().culprits, Told().cures) == (0, (), ())
