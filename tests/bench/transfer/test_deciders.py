"""Policies by name: none passes for another one, and the oracle applies the cure once."""

import pytest

from tamiyo.bench.transfer.deciders import make_policy
from tamiyo.policy import EnhancedTamiyoPolicyGNN, FallbackPolicy, PolicyConfig, RulesPolicy
from tamiyo.policy import checkpoint as checkpoints
from tamiyo.policy.checkpoint import CheckpointError


def test_rules_are_the_rules_and_fresh_every_time():
    one, other = make_policy("rules"), make_policy("rules")
    assert isinstance(one, RulesPolicy)
    assert one is not other


def test_a_folder_is_a_network_with_the_rules_behind_it(tmp_path):
    config = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
    network = EnhancedTamiyoPolicyGNN(config)
    network.save_pretrained(tmp_path, {"command": "test"})
    policy = make_policy(str(tmp_path))
    assert isinstance(policy, FallbackPolicy)
    assert policy.learned.is_trained
    assert policy.learned.version in policy.version


@pytest.mark.parametrize("name", ["learned", "nowhere"])
def test_a_policy_that_cannot_be_loaded_is_no_policy(name, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PRETRAINED", tmp_path / "nothing")
    with pytest.raises(CheckpointError):
        make_policy(name)


def test_the_shipped_policy_is_the_learned_one():
    policy = make_policy("learned")
    assert isinstance(policy, FallbackPolicy)
    assert policy.learned is not None
