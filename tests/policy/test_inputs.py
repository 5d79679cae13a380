import torch

from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.inputs import MaskedNormalizer


def test_fit_uses_measured_values_only():
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0], [99.0, 5.0]])
    measured = torch.tensor([[True, True], [True, True], [False, True]])
    normalizer = MaskedNormalizer(2)
    normalizer.fit(values, measured)
    torch.testing.assert_close(normalizer.mean, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(normalizer.scale, torch.tensor([2.0**0.5, 1.0]))
    out = normalizer(values, measured)
    torch.testing.assert_close(out[2], torch.tensor([0.0, 0.0, 0.0, 1.0]))
    torch.testing.assert_close(out[0, 0], torch.tensor(-(0.5**0.5)))


def test_outliers_are_clipped():
    normalizer = MaskedNormalizer(1, limit=3.0)
    assert normalizer(torch.tensor([[1e6]]), torch.tensor([[True]]))[0, 0] == 3.0


def test_a_column_that_was_never_measured_counts_as_missing_afterwards():
    normalizer = MaskedNormalizer(2)
    values, measured = torch.tensor([[3.0, 0.7]]), torch.tensor([[True, True]])
    torch.testing.assert_close(normalizer(values, measured)[0], torch.tensor([3.0, 0.7, 1.0, 1.0]))
    one_column = torch.tensor([[True, False], [True, False]])
    normalizer.fit(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), one_column)
    out = normalizer(values, measured)[0]
    assert out.tolist()[1:] == [0.0, 1.0, 0.0]
    assert torch.equal(normalizer(values, torch.tensor([[True, False]]))[0], out)


def test_a_checkpoint_keeps_what_was_never_measured(make_network, tmp_path):
    network = make_network()
    measured = torch.rand(20, 16) < 0.7
    measured[:, 8] = False
    network.trunk.node_norm.fit(torch.randn(20, 16), measured)
    network.save_pretrained(tmp_path, {"command": "test"})
    loaded = EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path)
    known = loaded.trunk.node_norm.known(torch.ones(1, 16, dtype=torch.bool))
    assert known[0].nonzero()[:, 0].tolist() == [*range(8), *range(9, 16)]
