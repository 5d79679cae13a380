"""The probe's numbers against a plain computation, in every kind of training step."""

import numpy as np
import pytest
import torch
from torch import nn

from tamiyo.contracts import Flag
from tamiyo.host import LayerProbe, TopologyRecorder, TrainingRun

ROWS, WIDTH = 48, 12


class Watched:
    """A model with a frozen layer in the middle, whose steps are measured and computed again."""

    def __init__(self, optimizer="sgd", dtype=torch.float32):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3)
        ).to(dtype)
        self.model[2].requires_grad_(requires_grad=False)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
        recorder = TopologyRecorder(self.model)
        recorder.attach()
        self.backward(self.batch())
        recorder.detach()
        run = TrainingRun(self.model, self.optimizer)
        self.probe = LayerProbe(run, recorder.layers())
        self.outputs = []

    def batch(self):
        return torch.randn(ROWS, 6, dtype=next(self.model.parameters()).dtype)

    def backward(self, inputs, share=1.0):
        with self.autocast:
            loss = self.model(inputs).float().square().mean() * share
        loss.backward()

    def sample(self, batches=1, between=lambda: None):
        """What the probe says about one step, and what the step really was."""
        self.optimizer.zero_grad()
        inputs = [self.batch() for _ in range(batches)]
        before = [p.detach().clone().double() for p in self.model.parameters()]
        self.probe.arm(7)
        for batch in inputs:
            self.backward(batch, 1 / batches)
            between()
        with torch.no_grad(), self.autocast:
            outputs = [inputs[0]]
            self.model.eval()
            state = [p.detach().clone() for p in self.model.parameters()]
            for module in self.model:
                outputs.append(module(outputs[-1]))
            self.model.train()
        assert all(map(torch.equal, state, self.model.parameters()))
        gradients = [None if p.grad is None else p.grad.double() for p in self.model.parameters()]
        self.optimizer.step()
        sample = self.probe.collect()
        assert self.probe.collect() is None
        after = [p.detach().double() for p in self.model.parameters()]
        return sample, Reference(outputs[1:], before, gradients, after)


class Reference:
    """The same statistics over everything, in double precision, layer by layer."""

    def __init__(self, outputs, before, gradients, after):
        self.outputs = [output.double() for output in outputs]
        self.parameters = {0: slice(0, 2), 2: slice(2, 4), 4: slice(4, 6)}
        self.before, self.gradients, self.after = before, gradients, after

    def norm(self, tensors, layer):
        found = tensors[self.parameters[layer]] if layer in self.parameters else []
        known = [tensor.reshape(-1) for tensor in found if tensor is not None]
        return torch.cat(known).norm().item() if known else np.nan

    def gradient_norm(self, layer):
        return self.norm(self.gradients, layer)

    def weight_norm(self, layer):
        return self.norm(self.after, layer)

    def update_ratio(self, layer):
        if np.isnan(self.gradient_norm(layer)):
            return np.nan
        pairs = zip(self.after, self.before, strict=True)
        change = [after - before for after, before in pairs]
        return self.norm(change, layer) / self.norm(self.before, layer)

    def activation_variance(self, layer):
        return self.outputs[layer].var(dim=0).mean().item()

    def avg_correlation(self, layer):
        r = torch.corrcoef(self.outputs[layer].T)
        varies = self.outputs[layer].var(dim=0) > 0
        pairs = varies[:, None] & varies & ~torch.eye(len(r), dtype=torch.bool)
        corrected = r + r * (1 - r * r) / (2 * (ROWS - 3))
        return corrected[pairs].mean().item()

    def dead_neuron_ratio(self, layer):
        shown = self.outputs[min(layer + 1, 4) if layer % 2 == 0 else layer]
        return (shown.abs().amax(dim=0) <= 1e-5).double().mean().item()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.3, momentum=0.9),
    "ascent": lambda p: torch.optim.Adam(p, 1e-2, maximize=True),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
}
EXACT = ("gradient_norm", "weight_norm", "update_ratio")
SEEN = ("activation_variance", "avg_correlation", "dead_neuron_ratio")


def compare(sample, reference, names, rtol):
    for name in names:
        expected = [getattr(reference, name)(layer) for layer in range(5)]
        got = sample.columns[name]
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_field_is_what_the_step_was(optimizer):
    watched = Watched(optimizer)
    for _ in range(2):
        sample, reference = watched.sample()
        compare(sample, reference, EXACT + SEEN, 2e-4)
    assert sample.step == 7
    assert not sample.columns["flags"].any()


@pytest.mark.parametrize("optimizer", ["sgd", "fused"])
def test_under_autocast_norms_are_those_of_the_single_precision_weights(optimizer):
    watched = Watched(optimizer)
    watched.autocast = torch.autocast("cpu", torch.bfloat16)
    sample, reference = watched.sample()
    assert reference.outputs[0].dtype is torch.float64
    compare(sample, reference, EXACT, 2e-4)
    compare(sample, reference, SEEN, 2e-3)


def test_in_bfloat16_throughout():
    sample, reference = Watched(dtype=torch.bfloat16).sample()
    compare(sample, reference, ("gradient_norm", "weight_norm"), 1e-2)
    compare(sample, reference, ("update_ratio",), 2e-2)
    compare(sample, reference, SEEN, 1e-2)


def test_accumulated_gradients_are_measured_once_as_their_sum():
    sample, reference = Watched().sample(batches=4)
    compare(sample, reference, EXACT + SEEN, 2e-4)


def test_an_evaluation_inside_a_step_is_not_measured():
    watched = Watched()

    def evaluate():
        watched.model.eval()
        with torch.no_grad():
            watched.model(100 * watched.batch())
        watched.model.train()

    watched.probe.layers.model.eval()
    watched.model.train()
    sample, reference = watched.sample(between=evaluate)
    compare(sample, reference, EXACT + SEEN, 2e-4)


def test_a_frozen_layer_is_not_sick_for_standing_still():
    sample, _ = Watched().sample()
    assert np.isnan(sample.columns["update_ratio"][[1, 2, 3]]).all()
    assert np.isnan(sample.columns["gradient_norm"][2])
    assert sample.columns["weight_norm"][2] > 0
    assert sample.columns["health_score"][2] > 0.5


def test_what_another_optimiser_trains_is_not_sick_for_standing_still():
    watched = Watched()
    head = watched.model[4]
    watched.optimizer = torch.optim.SGD(watched.model[0].parameters(), 0.3)
    run = TrainingRun(watched.model, watched.optimizer)
    watched.probe = LayerProbe(run, watched.probe.layers)
    sample, reference = watched.sample()
    assert head.weight.grad is not None
    assert np.isnan(sample.columns["update_ratio"][4])
    compare(sample, reference, ("gradient_norm", "weight_norm"), 2e-4)


def test_what_is_not_finite_is_flagged_and_missing():
    watched = Watched()
    with torch.no_grad():
        watched.model[4].weight[0, 0] = torch.inf
    sample, _ = watched.sample()
    flags = sample.columns["flags"]
    assert flags[4] & Flag.NONFINITE_ACTIVATION
    assert flags[4] & Flag.NONFINITE_WEIGHT
    assert np.isnan(sample.columns["weight_norm"][4])
    assert sample.columns["health_score"][4] == 0
