"""A whole training in miniature, on real networks in training."""

import json
from dataclasses import replace

import pytest
import torch

from tamiyo.bench.policy_training import PRESETS, Ablation, learning_curve, train_policy
from tamiyo.bench.provenance import environment_digest
from tamiyo.learn.imitation import CloningConfig
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig
from tamiyo.policy.checkpoint import read_checkpoint

SHAPE = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
TINY = replace(
    PRESETS["quick"],
    runs=8,
    lessons=2,
    guided=1,
    refinements=1,
    calibrations=1,
    selections=1,
    cloning=CloningConfig(epochs=2, batch_size=32),
    refinement=PRESETS["quick"].refinement.model_copy(update={"value_warmup": 0}),
    policy=SHAPE,
)


@pytest.fixture(autouse=True)
def small_comparison(monkeypatch):
    monkeypatch.setattr("tamiyo.bench.policy_training.pipeline.HOSTS", 4)


def weights(folder):
    return read_checkpoint(folder)[0]


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_training_that_was_interrupted_ends_with_the_same_policy(tmp_path):
    stages = []
    whole = train_policy(
        TINY, tmp_path / "whole", seed=3, report=lambda stage, *_: stages.append(stage)
    )
    assert list(dict.fromkeys(stages)) == [
        "lessons",
        "first-clone",
        "guided-lessons",
        "clone",
        "cloned-calibration",
        "refinement",
        "refined-calibration",
        "selection",
    ]
    for stop in ("lessons", "clone", "refinement", "refined-calibration"):

        def interrupt(stage, *_, stop=stop):
            if stage == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_policy(TINY, tmp_path / "broken", seed=3, report=interrupt)
    again = train_policy(TINY, tmp_path / "broken", seed=3)
    assert again.gain == whole.gain
    assert again.kept == whole.kept
    assert equal(weights(again.policy), weights(whole.policy))
    assert equal(weights(again.clone), weights(whole.clone))
    # Nothing is written twice, and nothing is missing.
    curve = learning_curve(tmp_path / "broken")
    assert curve == learning_curve(tmp_path / "whole")
    assert "KL from the clone" in curve
    assert not equal(
        weights(tmp_path / "whole" / "refined-policy"),
        weights(tmp_path / "whole" / "cloned-policy"),
    )


@pytest.mark.slow
def test_the_checkpoint_says_how_it_came_to_be(tmp_path):
    preset = TINY.without(Ablation.REFINEMENT)
    trained = train_policy(preset, tmp_path, seed=1, command="tamiyo train")
    notes = json.loads((trained.policy / "policy.json").read_text())
    record = notes["training"]
    assert (record["command"], record["preset"], record["seed"]) == ("tamiyo train", "quick", 1)
    assert "linear" in record["layer_types"]
    assert record["environment"] == environment_digest()
    assert set(record["versions"]) == {"tamiyo", "torch", "numpy"}
    assert notes["calibration"]["adapt_temperature"] > 0
    assert trained.kept == "clone"
    assert trained.gain is None
    policy = EnhancedTamiyoPolicyGNN.from_pretrained(trained.policy)
    assert policy.is_trained


@pytest.mark.slow
def test_another_training_is_not_overwritten(tmp_path):
    preset = TINY.without(Ablation.REFINEMENT)
    train_policy(preset, tmp_path, seed=1)
    with pytest.raises(ValueError, match="holds another training"):
        train_policy(preset, tmp_path, seed=2)
    with pytest.raises(ValueError, match="holds another training"):
        train_policy(TINY, tmp_path, seed=1)


@pytest.mark.slow
def test_without_imitation_reinforcement_learning_starts_from_nothing(tmp_path):
    preset = replace(TINY.without(Ablation.IMITATION), refinements=2)
    trained = train_policy(preset, tmp_path, seed=1)
    assert trained.clone is None
    assert trained.kept == "refined"
    assert not (tmp_path / "lessons").exists()
    normalised = weights(trained.policy)["trunk.global_norm.scale"]
    assert (normalised != 1.0).any()


def test_ablations_leave_out_one_thing():
    default = PRESETS["default"]
    assert default.without(Ablation.GRAPH).policy.num_gnn_layers == 0
    assert default.without(Ablation.REPLAY).refinement.replay_share == 0.0
    assert default.without(Ablation.REFINEMENT).refinements == 0
    alone = default.without(Ablation.IMITATION)
    assert alone.lessons == alone.guided == 0
    assert alone.refinement.anchor_coeff == 0.0
    rounds = default.lessons + default.guided + default.refinements
    assert alone.refinements == rounds
    for ablation in Ablation:
        assert default.without(ablation) != default
