"""Compiled models: seen in single uncompiled steps, adapted, and otherwise left to the compiler."""

import shutil
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host import HostSession, trace
from tamiyo.host.compiled import EagerSteps, OptimizerHearing, enough_memory, is_compiled

# Torch itself touches it when it compiles a module inside an eager one.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

WAYS = ("wrapped", "in place", "inside", "function")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.relu = nn.ReLU()
        self.body = nn.Sequential(nn.Linear(16, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(self.relu(self.stem(x))))


class Run:
    """A training loop in which something is compiled."""

    sessions: ClassVar = []

    def __init__(self, way, backend="aot_eager", *, whole_step=False):
        torch._dynamo.reset()
        torch.manual_seed(0)
        self.counter = CompileCounterWithBackend(backend)
        self.module = Net()
        self.model = self.module
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.05, momentum=0.9)
        self.loss = self._loss
        if way == "wrapped":
            self.model = torch.compile(self.module, backend=self.counter)
        elif way == "in place":
            self.module.compile(backend=self.counter)
        elif way == "inside":
            self.module.body.compile(backend=self.counter)
        elif way == "function":
            self.loss = torch.compile(self._loss, backend=self.counter)
        self.update = self.optimizer.step
        if whole_step:
            self.update = torch.compile(self.optimizer.step, backend="eager")
        self.session = None

    def _loss(self, x):
        return self.model(x).square().mean() + self.model(x).mean()

    def attach(self, client, **options):
        defaults = {"run": "run", "mode": "autonomous", "probe_budget": 1.0, "snapshot_budget": 1.0}
        self.session = HostSession(self.model, self.optimizer, client, **defaults | options)
        Run.sessions.append(self.session)
        return self.session

    def steps(self, count):
        losses = []
        for _ in range(count):
            loss = self.loss(torch.randn(12, 6))
            self.optimizer.zero_grad()
            loss.backward()
            self.update()
            if self.session is not None:
                self.session.step(loss)
            losses.append(loss.item())
        return losses

    def layer(self, name):
        return next(n.layer_id for n in self.session.topology.nodes if n.name == name)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    while Run.sessions:
        Run.sessions.pop().remove()
    assert torch._dynamo.eval_frame._stance.stance == "default"
    torch._dynamo.reset()


@pytest.mark.parametrize("way", WAYS)
def test_an_observed_compiled_run_trains_as_it_would(way, client):
    plain = Run(way)
    expected = plain.steps(12)
    watched = Run(way)
    session = watched.attach(client, mode="observe")
    assert watched.steps(12) == pytest.approx(expected, rel=1e-5)
    stats = session.stats()
    assert stats.errors == {}
    # The first two are free of the budget; whether there are more depends on the clock.
    assert stats.samples >= 2
    assert watched.counter.frame_count == plain.counter.frame_count
    session.remove()
    watched.steps(2)
    assert watched.counter.frame_count == plain.counter.frame_count


@pytest.mark.parametrize("way", WAYS)
def test_activations_and_data_flow_are_those_of_the_eager_model(way, client):
    torch.manual_seed(0)
    plain = trace(Net(), torch.randn(12, 6))
    run = Run(way)
    session = run.attach(client, mode="observe")
    run.steps(10)
    assert [n.name for n in session.topology.nodes] == [n.name for n in plain.nodes]
    assert session.topology.edges == plain.edges
    columns = session._last_sample.columns
    owned = [run.layer(name) for name in ("stem", "relu", "body.0", "body.1", "head")]
    assert not torch.isnan(torch.tensor(columns["activation_variance"][owned])).any()
    weights = [run.layer(name) for name in ("stem", "body.0", "head")]
    for column in ("gradient_norm", "weight_norm", "update_ratio"):
        assert not torch.isnan(torch.tensor(columns[column][weights])).any()


@pytest.mark.parametrize("way", WAYS)
def test_tracing_looks_through_the_compiler(way):
    run = Run(way)
    assert is_compiled(run.model) == (way != "function")
    assert trace(run.model, torch.randn(4, 6)).edges == trace(Net(), torch.randn(4, 6)).edges
    assert run.counter.frame_count == 0


ADAPTATIONS = {
    "widen": (AdaptationType.WIDEN, "stem", {"units": 3}),
    "seed": (
        AdaptationType.ADD_SEED,
        "body.0",
        {"training_steps": 3, "blending_steps": 5, "holding_steps": 3},
    ),
    "activation": (AdaptationType.CHANGE_ACTIVATION, "relu", {"to": "gelu"}),
    "normalization": (AdaptationType.INSERT_NORMALIZATION, "body.0", {}),
    "reinitialize": (AdaptationType.REINITIALIZE, "stem", {"scope": "all"}),
    "clip": (AdaptationType.CLIP_GRADIENTS, "stem", {}),
}


def adapted(run, client, decide, name, **options):
    kind, layer, parameters = ADAPTATIONS[name]
    session = run.attach(client, horizon=20, probe_budget=0.0, **options)
    run.steps(6)
    decision = decide(kind, (run.layer(layer),), **parameters)
    client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
    losses = run.steps(40)
    ((_, result),) = session.history
    assert session.stats().errors == {}
    return losses, result


@pytest.mark.parametrize("name", ADAPTATIONS)
@pytest.mark.parametrize("way", ["wrapped", pytest.param("function", marks=pytest.mark.slow)])
def test_an_adapted_compiled_run_trains_as_the_eager_one(way, name, client, decide):
    eager, result = adapted(Run("eager"), client, decide, name)
    assert result.outcome in {Outcome.KEPT, Outcome.ROLLED_BACK}
    compiled, other = adapted(Run(way), client, decide, name)
    assert other.outcome is result.outcome
    assert compiled == pytest.approx(eager, rel=1e-3, abs=1e-5)


def test_many_changes_do_not_exhaust_the_compiler(client, decide):
    run = Run("wrapped")
    run.attach(client, horizon=1)
    run.steps(4)
    for number in range(12):
        decision = decide(AdaptationType.WIDEN, (run.layer("stem"),), name=f"d{number}", units=1)
        client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
        run.steps(3)
    assert run.module.stem.out_features == 28
    run.session.remove()
    graphs = run.counter.frame_count
    torch.manual_seed(1)
    compiled = run.steps(3)
    assert run.counter.frame_count - graphs <= 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 8
    assert len(compiled) == 3


def test_hooks_that_a_compiled_optimizer_would_not_call_are_refused(client, decide):
    run = Run("wrapped", whole_step=True)
    session = run.attach(client, probe_budget=0.0)
    run.steps(8)
    scale, clip = AdaptationType.REINITIALIZE, AdaptationType.CLIP_GRADIENTS
    target = (run.layer("stem"),)
    for decision in (
        decide(clip, target, name="hooked"),
        decide(scale, target, name="plain", scope="all"),
    ):
        client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
    run.steps(2)
    outcomes = {d.decision_id: r.outcome for d, r in session.history}
    assert outcomes == {"hooked": Outcome.REFUSED, "plain": Outcome.APPLIED}
    assert not run.optimizer._optimizer_step_post_hooks


def test_an_eager_optimizer_is_heard():
    run = Run("wrapped")
    hearing = OptimizerHearing(run.optimizer, EagerSteps(run.model))
    run.steps(1)
    for _ in range(4):
        hearing._eager.tick()
        run.steps(1)
        hearing.listen()
    assert hearing.known
    assert not hearing.deaf
    assert not run.optimizer._optimizer_step_post_hooks


def test_the_cost_of_an_uncompiled_step_counts(client):
    eager = EagerSteps(Run("wrapped").model)
    eager.tick()
    for duration in (1.0, 2.0, 3.0):
        eager._last -= duration
        eager.tick()
    eager.begin()
    assert eager.active
    eager._last -= 6.0
    eager.tick()
    assert eager.extra_time == pytest.approx(4.0, abs=0.5)
    assert not eager.active


def test_the_stance_of_the_user_comes_back(client):
    run = Run("wrapped")
    with torch.compiler.set_stance("eager_on_recompile"):
        before = torch._dynamo.eval_frame._stance
        session = run.attach(client)
        run.steps(5)
        session.remove()
        assert torch._dynamo.eval_frame._stance == before


def test_an_interrupted_step_leaves_no_stance_behind(client):
    run = Run("wrapped")
    session = run.attach(client)
    run.loss(torch.randn(12, 6))
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    session.remove()
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_who_trains_on_without_telling_is_compiled_again(client):
    run = Run("wrapped")
    run.attach(client)
    run.session = None
    run.steps(3)
    assert run.counter.frame_count == 1
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.parametrize(("peak", "free", "fits"), [(0, 0, True), (10, 20, True), (10, 19, False)])
def test_an_uncompiled_step_needs_room(peak, free, fits):
    assert enough_memory(peak, free) is fits


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor(client, decide):
    plain = Run("wrapped", "inductor").steps(46)
    run = Run("wrapped", "inductor")
    losses, result = adapted(run, client, decide, "widen")
    assert result.outcome is Outcome.KEPT
    assert losses == pytest.approx(adapted(Run("eager"), client, decide, "widen")[0], rel=1e-3)
    watched = Run("wrapped", "inductor")
    watched.attach(client, mode="observe")
    assert watched.steps(46) == pytest.approx(plain, rel=1e-4)
    assert watched.session.stats().samples >= 2
