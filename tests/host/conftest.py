"""Small real models, real optimisers and a real bus for the host's tests."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from tamiyo.contracts import AdaptationDecision
from tamiyo.host import HostSession
from tamiyo.oona import connect


class ResidualMLP(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Linear(6, width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.down(functional.relu(self.up(x)))
        return self.head(x)


class InPlaceResidual(ResidualMLP):
    def forward(self, x):
        x = self.stem(x)
        y = self.down(functional.relu(self.up(x)))
        y += x
        return self.head(y)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(6, 4)
        self.right = nn.Linear(6, 5)
        self.merge = nn.Linear(9, 3)

    def forward(self, x):
        return self.merge(torch.cat([torch.tanh(self.left(x)), self.right(x)], dim=1))


class Buffered(Branches):
    """Writes both branches into views of one tensor."""

    def forward(self, x):
        y = x.new_zeros(len(x), 9)
        y[:, :4] = self.left(x)
        y[:, 4:] = self.right(x)
        return self.merge(y)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.cell = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = torch.tanh(self.cell(x))
        return self.head(x)


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.lstm(self.embed(tokens))[0])


class ClassToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.stem = nn.Linear(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.stem(x)], dim=1)
        return self.head(self.encoder(x)[:, 0])


def _mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def _conv():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(6 * 4, 3),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "mlp": (_mlp, lambda: torch.randn(12, 6)),
    "residual": (ResidualMLP, lambda: torch.randn(12, 6)),
    "in-place residual": (InPlaceResidual, lambda: torch.randn(12, 6)),
    "branches": (Branches, lambda: torch.randn(12, 6)),
    "buffered": (Buffered, lambda: torch.randn(12, 6)),
    "shared": (Shared, lambda: torch.randn(12, 6)),
    "conv": (_conv, lambda: torch.randn(12, 1, 8, 8)),
    "language": (Language, lambda: torch.randint(0, 11, (4, 7))),
    "transformer": (ClassToken, lambda: torch.randn(4, 5, 6)),
}

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 1e-2),
}


class Loop:
    """A training loop around a model of the zoo, as a user would write it."""

    def __init__(self, name="mlp", optimizer="sgd", seed=0):
        torch.manual_seed(seed)
        build, self.inputs = MODELS[name]
        self.model = build()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.session: HostSession | None = None

    def backward(self, inputs=None):
        output = self.model(self.inputs() if inputs is None else inputs)
        loss = output.float().square().mean() + output.float().mean()
        self.optimizer.zero_grad()
        loss.backward()
        return loss

    def step(self, inputs=None):
        loss = self.backward(inputs)
        self.optimizer.step()
        if self.session is not None:
            self.session.step(loss=loss)
        return loss.detach()

    def steps(self, count):
        return [self.step() for _ in range(count)]


@pytest.fixture(scope="session")
def loop():
    return Loop


@pytest.fixture
def client():
    return connect()


@pytest.fixture(scope="session")
def decide():
    def decide(adaptation, target=(), *, name="d1", run="run", expires=10**6, term=0, **parameters):
        return AdaptationDecision(
            decision_id=name,
            run=run,
            term=term,
            adaptation=adaptation,
            target=target,
            parameters=parameters,
            issued_at_step=0,
            expires_at_step=expires,
        )

    return decide
