"""Unusual dtypes, parameters, optimisers and forward passes: watched, they train on bit for bit."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, TopologyRecorder, TrainingRun
from tamiyo.host.updates import UpdateMeter


def mlp():
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)
    )


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x)


class Frozen(Wrapped):
    def __init__(self):
        super().__init__()
        self.net[0].requires_grad_(requires_grad=False)
        self.net[2].bias.requires_grad_(requires_grad=False)


class Recomputed(Wrapped):
    def forward(self, x):
        return checkpoint(self.net, x, use_reentrant=False)


class RecomputedReentrant(Wrapped):
    def forward(self, x):
        return checkpoint(self.net, x.requires_grad_(), use_reentrant=True)


class OneByOne(Wrapped):
    def forward(self, x):
        return torch.stack([self.net(row) for row in x])


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.weight = nn.Parameter(torch.randn(8, 5, dtype=torch.cfloat))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head((self.stem(x).to(torch.cfloat) @ self.weight).abs())


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6, sparse=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.embed((x[:, 0].abs() * 5).long() % 20))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x @ self.weight + self.bias


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.05)


def group_each(parameters):
    return torch.optim.AdamW([{"params": [p], "lr": 1e-3 * i} for i, p in enumerate(parameters, 1)])


RUNS = {
    "bfloat16": (lambda: mlp().bfloat16(), sgd),
    "float16": (lambda: mlp().half(), sgd),
    "float64": (lambda: mlp().double(), sgd),
    "complex": (Complex, sgd),
    "sparse gradients": (Sparse, sgd),
    "frozen": (Frozen, lambda p: torch.optim.AdamW([q for q in p if q.requires_grad])),
    "frozen in the optimiser": (Frozen, torch.optim.AdamW),
    "recomputed": (Recomputed, sgd),
    "recomputed, reentrant": (RecomputedReentrant, sgd),
    "without a batch": (OneByOne, sgd),
    "bare parameters": (Bare, sgd),
    "fused": (mlp, lambda p: torch.optim.AdamW(p, fused=True)),
    "rate in a tensor": (mlp, lambda p: torch.optim.Adam(p, torch.tensor(1e-2))),
    "a group each": (mlp, group_each),
    "closure": (mlp, lambda p: torch.optim.LBFGS(p, max_iter=3)),
}


def train(name, client=None, act=None, **options):
    """Losses, weights and the session of a short run; `act(topology)` may send a decision."""
    torch.manual_seed(0)
    build, optimizer_of = RUNS[name]
    model = build()
    optimizer = optimizer_of(model.parameters())
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    session = None
    if client is not None:
        session = HostSession(model, optimizer, client, run="run", probe_budget=1.0, **options)
    losses = []
    for step in range(12):
        x = torch.randn(12, 6).to(dtype)

        def closure(x=x):
            optimizer.zero_grad()
            loss = model(x).float().square().mean()
            loss.backward()
            return loss

        if name == "closure":
            loss = optimizer.step(closure)
        else:
            loss = closure()
            optimizer.step()
        losses.append(loss.detach())
        if session is not None:
            session.step(loss)
            if act is not None and step == 2:
                act(session.topology)
    return losses, list(model.parameters()), session


@pytest.mark.parametrize("name", RUNS)
def test_an_observed_run_is_bit_identical(name, client):
    losses, weights, _ = train(name)
    watched_losses, watched_weights, session = train(name, client, snapshot_budget=1.0)
    assert session.stats().errors == {}
    assert session.stats().samples > 0
    assert watched_losses == losses
    assert all(map(torch.equal, weights, watched_weights))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (AdaptationType.CLIP_GRADIENTS, {}),
        (AdaptationType.SCALE_LEARNING_RATE, {"factor": 0.5}),
        (AdaptationType.REINITIALIZE, {"scope": "all"}),
        (AdaptationType.CHANGE_ACTIVATION, {"to": "gelu"}),
    ],
)
def test_whatever_is_offered_can_be_applied(name, kind, parameters, client, decide):
    def act(topology):
        offered = [node.layer_id for node in topology.nodes if kind in node.actions]
        if offered:
            decision = decide(kind, tuple(offered[:2]), **parameters)
            client.publish_nowait(Topic.DECISIONS, decision.to_bytes())

    losses, _, session = train(name, client, act, mode="autonomous", horizon=5)
    session.remove()
    assert session.stats().errors == {}
    assert all(torch.isfinite(loss) for loss in losses)
    for _, result in session.history:
        assert result.outcome in {Outcome.KEPT, Outcome.ROLLED_BACK}, result.reason
        assert result.verified is not False


def test_sharded_parameters_are_not_measured():
    """Their norms would be collective operations: on one rank alone they would wait for ever."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        model = mlp()
        sharded = torch.distributed.tensor.distribute_tensor(model[0].weight.detach(), mesh)
        model[0].weight = nn.Parameter(sharded)
        optimizer = sgd(model.parameters())
        assert TrainingRun(model, optimizer).other_ranks == 0
        meter = UpdateMeter(TopologyRecorder(model).layers(), optimizer)
        assert not any(hasattr(parameter, "device_mesh") for parameter in meter._parameters)
        assert len(meter._parameters) == 5
    finally:
        torch.distributed.destroy_process_group()
