"""The study of growth compares like with like, on runs that are really grown."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from tamiyo.bench import growth_digits
from tamiyo.bench.growth import (
    BASELINE,
    GROWTHS,
    NO_GROWTH,
    Problem,
    go_on,
    main,
    network,
    study,
)
from tamiyo.bench.growth_live import INITIALIZATIONS, GrowingRun
from tamiyo.bench.growth_peer import gromo_missing, grow_with_gromo
from tamiyo.bench.growth_report import ratio_interval, summary
from tamiyo.host.actions import ACTIONS


def test_a_summary_holds_ratios_of_pairs_and_intervals_over_seeds():
    forks = [
        [{"random": 2.0, "other": 1.0}, {"random": 1.0, "other": 1.0}],
        [{"random": 4.0, "other": 1.0}, {"random": 1.0, "other": 2.0}],
    ]
    whole = [{"random": 1.0, "other": 0.1}, {"random": 1.0, "other": 0.4}]
    found = summary(forks, whole, "random")["other"]
    assert found["forks"]["per_growth"] == [0.375, 1.5]
    assert found["forks"]["better"] == 0.5
    means = np.array([0.75, 1.125])
    half = 12.706 * means.std(ddof=1) / math.sqrt(2)
    assert found["forks"]["mean"] == pytest.approx(means.mean())
    assert found["forks"]["low"] == pytest.approx(means.mean() - half, rel=1e-4)
    assert found["forks"]["high"] == pytest.approx(means.mean() + half, rel=1e-4)
    assert found["whole"]["mean"] == pytest.approx(0.2)
    assert found["whole"]["better"] == 1.0


def test_equal_ratios_have_an_interval_of_nothing():
    assert ratio_interval([2.0, 2.0, 2.0]) == pytest.approx(
        {"mean": 2.0, "low": 2.0, "high": 2.0, "better": 0.0}
    )


def test_every_initialisation_that_is_compared_is_one_of_the_hosts():
    rule = ACTIONS["widen"].rules["initialization"]
    assert {*INITIALIZATIONS} == {*rule.options}


@pytest.mark.parametrize("method", [*INITIALIZATIONS, NO_GROWTH])
def test_a_branch_grows_by_one_unit_and_is_repeatable(method):
    problem = Problem.drawn(1, nn.ReLU)
    options = {"warmup": 3, "steps": 10, "rate": 0.05, "keep": 7}
    one, two = (go_on(problem, problem.student, method, **options) for _ in range(2))
    units = 5 if method == NO_GROWTH else 6
    assert [tuple(weight.shape) for weight in one.kept] == [(units, 10), (10, units)]
    assert one.loss == two.loss
    assert all(map(torch.equal, one.kept, two.kept))
    with torch.no_grad():
        assert one.loss < problem.loss(network(one.kept, nn.ReLU)).item()


def test_the_baseline_draws_other_directions_at_every_growth():
    problem = Problem.drawn(0, nn.ReLU)
    directions = []
    for warmup in (2, 3):
        branch = go_on(
            problem, problem.student, BASELINE, warmup=warmup, steps=1, rate=0.05, keep=0
        )
        directions.append(branch.kept[1][:, -1])
    assert not torch.equal(*directions)


def test_a_study_has_all_forks_and_whole_runs():
    found = study(0, (BASELINE, "correlated", NO_GROWTH), nn.ReLU, steps=201)
    assert len(found.forks) == GROWTHS
    assert all(losses.keys() == {BASELINE, "correlated", NO_GROWTH} for losses in found.forks)
    assert found.whole.keys() == {BASELINE, "correlated"}
    assert found.forks[0][NO_GROWTH] > found.forks[0]["correlated"]


@pytest.mark.slow
def test_choosing_beats_chance():
    studies = [
        study(seed, (BASELINE, "gradmax_rectified", "correlated"), nn.ReLU) for seed in range(4)
    ]
    found = summary([s.forks for s in studies], [s.whole for s in studies], BASELINE)
    assert all(ratios["forks"]["high"] < 1 for ratios in found.values())
    assert all(ratios["whole"]["mean"] < 0.7 for ratios in found.values())


def test_a_growth_that_is_refused_is_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = GrowingRun(model, optimizer)
    for _ in range(3):
        loss = model(torch.ones(3, 2)).square().mean()
        loss.backward()
        optimizer.step()
        run.step(loss)
        run.grow(("0",), 1, "gradmax", 1)
    with pytest.raises(RuntimeError, match="keep zero"):
        run.end()


@pytest.mark.skipif(bool(gromo_missing()), reason="gromo is not installed")
def test_gromo_grows_the_same_student():
    problem = Problem.drawn(0, nn.SELU)
    model = network(problem.student, nn.SELU)
    grown, _ = grow_with_gromo(problem, model, 0.05)
    torch.testing.assert_close(grown(problem.inputs), model(problem.inputs))
    assert len(next(grown.parameters())) == 6


@pytest.mark.parametrize("network", growth_digits.NETWORKS)
def test_digits_are_learned_on_a_run_that_is_grown(network, monkeypatch):
    monkeypatch.setattr(growth_digits, "BEFORE", 20)
    chosen = growth_digits.NETWORKS[network]
    monkeypatch.setattr(growth_digits, "RECORDED", 1)
    endings = [growth_digits.train(chosen, "Adam", "correlated", 0, 12) for _ in range(2)]
    assert endings[0] == endings[1]
    plain = growth_digits.train(chosen, "Adam", growth_digits.NO_GROWTH, 0, 12)
    assert plain != endings[0]
    assert 0 < endings[0].loss < math.log(10) + 0.1


def test_the_command_prints_what_it_found(capsys, monkeypatch):
    monkeypatch.setattr("tamiyo.bench.growth.GROWTHS", 1)
    assert main(["--seeds", "2", "--steps", "201", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ratios"].keys() >= {*INITIALIZATIONS[1:], NO_GROWTH}
    with pytest.raises(SystemExit):
        main(["--seeds", "1"])
