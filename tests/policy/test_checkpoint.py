import json

import pytest
import torch

from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig
from tamiyo.policy.calibration import Calibration, tempered
from tamiyo.policy.checkpoint import CheckpointError

TRAINING = {"command": "test", "seed": 0}


@pytest.fixture
def saved(make_network, tmp_path):
    network = make_network()
    network.trunk.node_norm.fit(torch.randn(20, 16), torch.rand(20, 16) < 0.7)
    network.calibration = Calibration(1.5, 2.5)
    return network, network.save_pretrained(tmp_path / "policy", TRAINING), tmp_path / "policy"


def test_what_is_loaded_is_what_was_saved(saved, make_topology, make_state):
    network, version, path = saved
    loaded = EnhancedTamiyoPolicyGNN.from_pretrained(path)
    assert loaded.config == network.config
    assert loaded.calibration == Calibration(1.5, 2.5)
    assert loaded.version == version != "untrained"
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    data = make_state(make_topology(4)).graph_data
    assert torch.equal(loaded(data)["layer_priority"], network(data)["layer_priority"])


def test_loading_draws_no_random_numbers(saved):
    """Loaded while a user's run is about to shuffle its data, which must go on as it would have."""
    _, _, path = saved
    before = torch.random.get_rng_state()
    loaded = EnhancedTamiyoPolicyGNN.from_pretrained(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    everything = [*loaded.parameters(), *loaded.buffers()]
    assert not any(tensor.is_meta for tensor in everything)


def test_thresholds_can_be_replaced_but_not_the_shape(saved):
    _, _, path = saved
    shape = {"hidden_dim": 16, "num_gnn_layers": 2, "num_attention_heads": 2}
    strict = PolicyConfig(**shape, safety_margin=0.01)
    assert EnhancedTamiyoPolicyGNN.from_pretrained(path, strict).config.safety_margin == 0.01
    with pytest.raises(CheckpointError, match="does not fit"):
        EnhancedTamiyoPolicyGNN.from_pretrained(path, PolicyConfig(hidden_dim=32))


def test_weights_of_unknown_origin_are_not_saved(make_network, tmp_path):
    with pytest.raises(ValueError, match="how the weights were trained"):
        make_network().save_pretrained(tmp_path, {})


def edit(path, **changes):
    manifest = json.loads((path / "policy.json").read_text())
    (path / "policy.json").write_text(json.dumps(manifest | changes))


def test_another_schema_version_is_refused_by_name(saved):
    _, _, path = saved
    edit(path, schema_version=99)
    with pytest.raises(CheckpointError, match="schema version 99"):
        EnhancedTamiyoPolicyGNN.from_pretrained(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "something"}, "does not hold a policy"),
        ({"sha256": "0" * 64}, "not those of its manifest"),
        ({"config": {"hidden_dim": -1}}, "does not fit"),
        ({"config": None}, "does not fit"),
        ({"calibration": {"adapt_temperature": 0}}, "does not fit"),
        ({"calibration": [1]}, "does not fit"),
    ],
)
def test_a_damaged_manifest_is_refused(saved, changes, reason):
    _, _, path = saved
    edit(path, **changes)
    with pytest.raises(CheckpointError, match=reason):
        EnhancedTamiyoPolicyGNN.from_pretrained(path)


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_damaged_or_missing_file_is_refused(saved, name, content):
    _, _, path = saved
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        EnhancedTamiyoPolicyGNN.from_pretrained(path)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="positive"):
        Calibration(adapt_temperature=temperature)


def test_tempering_divides_the_logit():
    logits = torch.tensor([1.7, -4.0, 0.0])
    torch.testing.assert_close(tempered(logits.sigmoid(), 2.0), (logits.double() / 2).sigmoid())
    assert tempered(torch.tensor([0.0, 1.0]), 3.0).tolist() == [0.0, 1.0]
