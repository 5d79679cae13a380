"""Random small models that can be adapted, and a loop that trains them on a fixed problem."""

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tamiyo.host import TopologyRecorder, TrainingRun
from tamiyo.host.actions import Context

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 2e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 2e-3, amsgrad=True, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 2e-3, fused=True),
}


class Block(nn.Module):
    """The MLP block of a transformer, with functional activation and dropout."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x):
        hidden = functional.dropout(functional.gelu(self.up(self.norm(x))), 0.0, self.training)
        return x + self.down(hidden)


def build_mlp(widths, norm, activation):
    layers = []
    for before, after in zip([5, *widths], widths, strict=False):
        layers.append(nn.Linear(before, after))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(widths[-1], 3))


def build_cnn(widths, norm, activation):
    layers = []
    for before, after in zip([2, *widths], widths, strict=False):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(activation())
    return nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.0), nn.Linear(widths[-1] * 9, 3)
    )


def build_blocks(widths, norm, activation):
    return nn.Sequential(nn.Linear(5, 6), *(Block(6, width) for width in widths), nn.Linear(6, 3))


BUILDERS = {
    "mlp": (build_mlp, (5,)),
    "cnn": (build_cnn, (2, 6, 6)),
    "blocks": (build_blocks, (4, 5)),
}


class Training:
    """A full-batch regression, and the host's view of it."""

    def __init__(self, kind, widths, norm, activation, optimizer, seed):
        build, shape = BUILDERS[kind]
        torch.manual_seed(seed)
        self.model = build(widths, norm, activation)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.inputs = torch.randn(16, *shape)
        with torch.no_grad():
            target = build(widths, False, activation)(self.inputs)
        self.target = target + 0.1 * torch.randn_like(target)
        recorder = TopologyRecorder(self.model)
        recorder.attach()
        self.steps(3)
        recorder.detach()
        self.layers = recorder.layers()
        run = TrainingRun(self.model, self.optimizer)
        self.context = Context(run, self.layers, seed=seed)

    def step(self):
        loss = functional.mse_loss(self.model(self.inputs), self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def steps(self, count):
        return [self.step() for _ in range(count)]

    def outputs(self):
        """Outputs in both modes, leaving the running statistics alone."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.no_grad():
            train = self.model(self.inputs)
            evaluated = self.model.eval()(self.inputs)
            self.model.train()
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
        return train, evaluated


trainings = st.builds(
    Training,
    kind=st.sampled_from(sorted(BUILDERS)),
    widths=st.lists(st.integers(2, 7), min_size=1, max_size=3),
    norm=st.booleans(),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.PReLU]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    seed=st.integers(0, 999),
)
