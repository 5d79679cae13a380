import torch

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


def test_a_column_that_was_never_measured_stays_harmless():
    normalizer = MaskedNormalizer(1)
    normalizer.fit(torch.zeros(4, 1), torch.zeros(4, 1, dtype=torch.bool))
    assert (normalizer.mean.item(), normalizer.scale.item()) == (0.0, 1.0)
