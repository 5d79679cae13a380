"""Temperatures find the scale that samples were drawn with."""

import pytest
import torch
from torch.nn import functional

from tamiyo.learn.imitation.demonstrations import Demonstrations
from tamiyo.learn.imitation.temperatures import fit_calibration, fit_temperature
from tamiyo.learn.segments import TARGETS
from tamiyo.policy.actions import Action


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    true = 2.0 * torch.randn(20_000, generator=generator)
    truth = (torch.rand(20_000, generator=generator) < true.sigmoid()).float()
    found = fit_temperature(temperature * true, truth, torch.ones(20_000))
    assert found == pytest.approx(temperature, rel=0.08)


def test_it_is_the_likeliest_one():
    generator = torch.Generator().manual_seed(1)
    logits, truth = (
        torch.randn(300, generator=generator),
        torch.rand(300, generator=generator) < 0.4,
    )
    weights = torch.rand(300, generator=generator)
    best = fit_temperature(logits, truth.float(), weights)

    def loss(temperature):
        return functional.binary_cross_entropy_with_logits(
            logits.double() / temperature, truth.double(), weight=weights.double()
        )

    assert all(loss(best) <= loss(other) + 1e-6 for other in (0.3, 0.7, 1.0, 1.5, 2.5, 6.0))


def test_weights_choose_the_samples():
    generator = torch.Generator().manual_seed(2)
    true = 2.0 * torch.randn(8000, generator=generator)
    truth = (torch.rand(8000, generator=generator) < true.sigmoid()).float()
    logits = torch.cat([true[:4000], 4.0 * true[4000:]])
    weights = (torch.arange(8000) < 4000).float()
    assert fit_temperature(logits, truth, weights) == pytest.approx(1.0, rel=0.15)
    assert fit_temperature(logits, truth, 1 - weights) == pytest.approx(4.0, rel=0.15)


def test_nothing_is_said_where_an_answer_never_occurs():
    assert fit_temperature(torch.randn(9), torch.zeros(9), torch.ones(9)) == 1.0


def test_an_overconfident_network_is_calmed_down(make_graphs, make_network):
    network = make_network()
    graphs = make_graphs([3] * 400)
    generator = torch.Generator().manual_seed(0)
    adapt = torch.rand(400, generator=generator) < 0.5
    targets = torch.full((400, len(TARGETS)), torch.nan)
    targets[:50, TARGETS.index("safety")] = 1.0
    lessons = Demonstrations(
        graphs,
        Action(adapt, torch.full((400,), -1), torch.zeros(400, dtype=torch.long)),
        torch.ones(400),
        targets,
        torch.full((400,), torch.nan),
    )
    found = fit_calibration(network, lessons)
    # Its answers have nothing to do with the truth; of safety only one answer was ever seen.
    assert found.adapt_temperature > 3.0
    assert found.safety_temperature == 1.0
