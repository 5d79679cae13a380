"""Who decides where the learned policy was asked for, and what the journal says about it."""

import pytest
import torch

from tamiyo.policy import (
    EnhancedTamiyoPolicyGNN,
    FallbackPolicy,
    PolicyConfig,
    RulesPolicy,
    checkpoint,
)
from tamiyo.service import ServiceConfig, TamiyoService, read_journal


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Lets a checkpoint be the one that comes with the package."""

    def make(layer_types):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
            network = EnhancedTamiyoPolicyGNN(config)
        with torch.no_grad():
            for name in ("adapt", "safety"):
                network.heads.head(name).last.bias.fill_(8.0)
        training = {"command": "test", "layer_types": layer_types}
        network.save_pretrained(tmp_path / "pretrained", training)
        monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")

    return make


@pytest.fixture
def decide(bus, sample, tmp_path):
    """The service, and the journal's entry about its first decision on a run with a dead layer."""

    async def make():
        config = ServiceConfig(journal=tmp_path / "journal.jsonl")
        service = TamiyoService(bus, run="r", config=config)
        for step in (10, 20, 30):
            sample(step, dead=1.0)
            await service.advance()
        await service.shut_down()
        entries = list(read_journal(config.journal))
        assert entries[0]["policy"] == service.policy.name
        assert entries[0]["version"] == service.policy.version
        return service, next(entry for entry in entries if entry["event"] == "proposed")

    return make


async def test_without_a_shipped_policy_the_rules_decide(decide, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "nothing")
    service, entry = await decide()
    assert isinstance(service.policy, RulesPolicy)
    assert entry["decision"]["policy"] == "rules"
    assert entry["passed_over"] == {}


async def test_a_shipped_policy_decides_and_the_journal_says_so(decide, ship):
    ship(["linear"])
    service, entry = await decide()
    assert isinstance(service.policy, FallbackPolicy)
    assert entry["decision"]["policy"] == "gnn"
    assert service.stats()["cycle"]["deciders"] == {"gnn": 1}
    assert entry["decision"]["policy_version"] == service.policy.learned.version
    assert list(entry["passed_over"]) == ["rules"]
    assert "relied on" in entry["passed_over"]["rules"]


async def test_the_journal_says_why_the_shipped_policy_did_not_decide(decide, ship):
    ship(["conv"])
    service, entry = await decide()
    assert entry["decision"]["policy"] == "rules"
    assert service.stats()["cycle"]["deciders"] == {"rules": 1}
    assert "layers of unseen types" in entry["passed_over"]["gnn"]
