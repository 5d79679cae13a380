"""Few experiences of unseen pairs, and what is compared afterwards."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tamiyo.bench.evaluation.splits import SEEDS, SPLITS
from tamiyo.bench.fine_tuning import EXPERIENCES, PAIRS, fine_tuned, tuning
from tamiyo.bench.fine_tuning.__main__ import main
from tamiyo.envs.training.data import HELD_OUT_DATA
from tamiyo.envs.training.sampling import draw_cohort
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.checkpoint import MANIFEST


@pytest.fixture
def short(monkeypatch):
    """Pairs whose episodes take a moment."""
    pairs = {
        name: replace(pair, config=replace(pair.config, interval=2, widths=(16,), held_out=32))
        for name, pair in PAIRS.items()
    }
    monkeypatch.setattr("tamiyo.bench.fine_tuning.__main__.PAIRS", pairs)
    return pairs


def test_pairs_are_of_networks_and_data_that_were_never_trained_on():
    trained = SPLITS["train"].config
    assert {pair.config.data for pair in PAIRS.values()} == {(name,) for name in HELD_OUT_DATA}
    for pair in PAIRS.values():
        assert not set(pair.config.data) & set(trained.data)
        assert pair.config.min_hidden > trained.max_hidden
        taken = [one.offset for one in (*SPLITS.values(), *PAIRS.values()) if one is not pair]
        assert all(abs(pair.offset - offset) >= SEEDS for offset in taken)


def test_runs_of_a_pair_are_deeper_than_any_trained_on():
    (pair, *_) = PAIRS.values()
    plan = draw_cohort(np.random.default_rng(0), pair.config, 16)
    assert min(one.spec.hidden for one in plan.scenarios) > SPLITS["train"].config.max_hidden


def test_no_pair_has_deep_sigmoid_networks_because_they_do_not_train():
    def activations(config):
        plans = [draw_cohort(np.random.default_rng(seed), config, 1) for seed in range(60)]
        return {one.spec.activation for plan in plans for one in plan.scenarios}

    for pair in PAIRS.values():
        deep = activations(pair.config)
        assert activations(replace(pair.config, min_hidden=2)) == deep | {"sigmoid"}
        assert "sigmoid" not in deep


def test_few_experiences_move_the_policy_and_leave_the_first_as_it_was(
    untrained, short, monkeypatch, tmp_path
):
    (pair, *_) = short.values()
    before = EnhancedTamiyoPolicyGNN.from_pretrained(untrained)
    monkeypatch.setattr(tuning, "EXPERIENCES", 240)
    paths = [
        fine_tuned(untrained, pair, seed, tmp_path / f"{n}") for n, seed in enumerate((0, 0, 1))
    ]
    one, same, other = (EnhancedTamiyoPolicyGNN.from_pretrained(path) for path in paths)
    assert one.version == same.version
    assert len({before.version, one.version, other.version}) == 3
    assert EnhancedTamiyoPolicyGNN.from_pretrained(untrained).version == before.version
    manifest = json.loads((paths[0] / MANIFEST).read_text())
    assert manifest["training"]["experiences"] == 240 <= EXPERIENCES


@pytest.mark.slow
def test_the_command_compares_before_and_after(untrained, short, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "EXPERIENCES", 240)
    (name, *_) = short
    main([str(untrained), "--pair", name, "--trainings", "1", "--seeds", "2"])
    said = capsys.readouterr().out
    assert f"### {name}: 64 runs" in said
    for cohort in ("rules", "learned", "tuned-0", "oracle"):
        assert f"\n| {cohort} |" in said
    assert "tuned-0 - rules" in said


def test_what_cannot_be_used_ends_with_2(tmp_path, capsys):
    for arguments in ([str(tmp_path)], ["--seeds", "0"], ["--pair", "shallow"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert "cannot read the checkpoint" in capsys.readouterr().err
