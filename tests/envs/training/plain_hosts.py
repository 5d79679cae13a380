"""Hosts as plain PyTorch modules, trained by a plain loop: what the batched program must equal."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from tamiyo.envs.training.hosts import HostSpec, batch_order, initial_layers, rate_schedule
from tamiyo.host import TopologyRecorder
from tamiyo.host.probe import LayerProbe
from tamiyo.host.training import TrainingRun

MODULES = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Host(nn.Module):
    """The network of a spec."""

    def __init__(self, spec: HostSpec, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.wiring = spec.wiring
        sizes = spec.sizes
        self.linears = nn.ModuleList(nn.Linear(*pair, dtype=dtype) for pair in pairwise(sizes[:-1]))
        self.activations = nn.ModuleList(MODULES[spec.activation]() for _ in self.linears)
        self.head = nn.Linear(*sizes[-2:], dtype=dtype)
        with torch.no_grad():
            pairs = zip((*self.linears, self.head), initial_layers(spec), strict=True)
            for linear, (weight, bias) in pairs:
                linear.weight.copy_(torch.as_tensor(weight).T)
                linear.bias.copy_(torch.as_tensor(bias))

    @property
    def layers(self):
        return [*self.linears, self.head]

    def forward(self, x):
        first, h, last = None, x, len(self.linears) - 1
        for level, (linear, activation) in enumerate(
            zip(self.linears, self.activations, strict=True)
        ):
            out = activation(linear(h))
            if self.wiring == "residual" and level > 0:
                out = h + out
            if self.wiring == "skip" and level == last > 0:
                out = out + first
            first = out if level == 0 else first
            h = out
        return self.head(h)


def make_optimizer(spec: HostSpec, model: nn.Module):
    if spec.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=spec.learning_rate)
    return torch.optim.SGD(model.parameters(), lr=spec.learning_rate, momentum=spec.momentum)


class Run:
    """A host, its optimiser and its data in a plain training loop."""

    def __init__(self, spec: HostSpec, steps: int, dtype: torch.dtype = torch.float32):
        self.spec, self.model = spec, Host(spec, dtype)
        self.optimizer = make_optimizer(spec, self.model)
        self.schedule = None
        if spec.schedule != "constant":
            factors = rate_schedule(spec, steps).tolist()
            self.schedule = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, lambda step: factors[min(step, steps - 1)]
            )
        self.order = batch_order(spec, steps)
        self.x = torch.as_tensor(spec.dataset.train, dtype=dtype)
        self.labels = torch.as_tensor(spec.dataset.train_labels)
        self.steps = 0

    def train(self):
        """One step; returns the loss before it."""
        chosen = torch.as_tensor(self.order[self.steps])
        self.steps += 1
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(self.x[chosen]), self.labels[chosen])
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return loss.item()

    def record(self):
        """The layers as the host traces them."""
        recorder = TopologyRecorder(self.model)
        recorder.attach()
        self.model(self.x[:2])
        recorder.detach()
        return recorder

    def sample(self, layers):
        """One step, and what the live probe measures in it."""
        probe = LayerProbe(TrainingRun(self.model, self.optimizer), layers, every=1)
        probe.arm(self.steps + 1)
        loss = self.train()
        sample = probe.collect()
        self.activity = probe.activity
        return loss, sample
