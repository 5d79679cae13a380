"""`tamiyo.attach` as a user meets it: around a plain training loop, in every mode."""

import asyncio
import gc
import io
import threading

import pytest
import torch
from torch import nn

import tamiyo
from following import SLOW_SEED, Plan
from tamiyo.contracts import AdaptationDecision, AdaptationType, Outcome
from tamiyo.policy import Verdict
from tamiyo.policy.budget import DecisionBudget
from tamiyo.service import read_journal

STEPS = 60


class AsksOnce:
    """A policy that asks for one adaptation as soon as it is shown a graph."""

    name, version = "asks once", "1"

    def __init__(self, adaptation=AdaptationType.SCALE_LEARNING_RATE, parameters=None):
        self.budget = DecisionBudget(9, 0, 99)
        self.adaptation = adaptation
        self.parameters = {"factor": 0.5} if parameters is None else parameters
        self.asked = False

    def decide(self, state):
        if self.asked:
            return Verdict(None, "asked already")
        self.asked = True
        decision = AdaptationDecision(
            decision_id="the one",
            run=state.topology.run,
            adaptation=self.adaptation,
            parameters=self.parameters,
            issued_at_step=state.step,
            expires_at_step=state.step + 1000,
        )
        return Verdict(decision, "asked")

    def make_decision(self, state):
        return self.decide(state).decision


class Fails(AsksOnce):
    def decide(self, state):
        raise ZeroDivisionError("a broken policy")


class Run:
    """A small model, its optimiser and its loop."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.data = torch.Generator().manual_seed(0)

    def train(self, control=None, steps=STEPS, *, give_loss=True):
        for _ in range(steps):
            inputs = torch.randn(32, 8, generator=self.data)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(inputs), (inputs[:, 0] > 0).long())
            loss.backward()
            self.optimizer.step()
            if control is not None:
                control.step(loss=loss if give_loss else None)
        return self

    def attach(self, **options):
        return tamiyo.attach(
            self.model, self.optimizer, **{"pace": "lockstep", "probe_budget": 1.0} | options
        )

    @property
    def learning_rate(self):
        return self.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("pace", ["lockstep", "realtime"])
def test_observing_changes_nothing_bit_for_bit(pace):
    alone, observed = Run().train(), Run()
    with observed.attach(pace=pace, policy=AsksOnce()) as control:
        observed.train(control)
        control.report(val_loss=0.5, val_accuracy=0.9)
    for one, other in zip(alone.model.parameters(), observed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert control.history == ()
    assert control.stats()["host"]["steps"] == STEPS
    assert [node.name for node in control.topology.nodes] == ["0", "1", "2"]


def test_autonomy_applies_and_tells_what_came_of_it(tmp_path):
    run = Run()
    with run.attach(mode="autonomous", policy=AsksOnce(), journal=tmp_path / "j") as control:
        run.train(control, steps=400)
    [(decision, result)] = control.history
    assert (decision.decision_id, result.outcome) == ("the one", Outcome.KEPT)
    assert run.learning_rate == pytest.approx(0.05)
    events = [entry["event"] for entry in read_journal(tmp_path / "j")]
    assert [e for e in events if e != "blocked"] == [
        "started", "topology", "proposed", "result", "result", "stopped",
    ]  # fmt: skip


def test_advice_is_listed_and_not_followed():
    run = Run()
    with run.attach(policy=AsksOnce()) as control:
        run.train(control)
        assert [advice.decision_id for advice in control.advice] == ["the one"]
    assert run.learning_rate == 0.1


def test_confirmation_comes_first():
    run = Run()
    with run.attach(mode="confirm", policy=AsksOnce()) as control:
        run.train(control, steps=200)
        assert [decision.decision_id for decision in control.waiting] == ["the one"]
        assert run.learning_rate == 0.1
        assert control.confirm("the one")
        assert not control.confirm("the one")
        run.train(control, steps=2)
        assert run.learning_rate == pytest.approx(0.05)


def test_without_a_loss_autonomy_waits_for_a_yes(caplog):
    run = Run()
    with run.attach(mode="autonomous", policy=AsksOnce()) as control:
        run.train(control, give_loss=False)
        assert len(control.waiting) == 1
    assert "no loss was given" in caplog.text


@pytest.mark.parametrize("pace", ["lockstep", "realtime"])
def test_a_broken_policy_never_reaches_the_loop(pace, caplog):
    run = Run()
    with run.attach(mode="autonomous", policy=Fails(), pace=pace) as control:
        run.train(control)
    assert control.stats()["host"]["steps"] == STEPS
    if pace == "lockstep":
        assert caplog.text.count("the controller stopped; training goes on") == 1


def test_removing_after_the_controller_has_died_never_raises():
    run = Run()
    control = run.attach()
    run.train(control, steps=3)
    control._controller._loop.call_soon_threadsafe(control._service.stop)
    control._controller._thread.join(30)
    run.train(control, steps=3)
    control.remove()
    assert control.stats()["host"]["steps"] == 6


def test_a_loss_that_is_nan_or_of_the_wrong_kind_never_raises():
    run = Run()
    with run.attach(mode="autonomous") as control:
        run.train(control, steps=5)
        for loss in (float("nan"), float("inf"), torch.tensor(float("nan")), torch.ones(2), "x"):
            control.step(loss=loss)
        control.report(val_loss=float("nan"), val_accuracy=7.0)
        run.train(control, steps=5)


def test_health_has_a_number_for_every_layer():
    run = Run()
    control = run.attach()
    assert control.health() == {}
    run.train(control)
    health = control.health()
    assert [*health] == ["0", "1", "2"]
    assert all(0 <= score <= 1 for score in health.values())
    control.remove()


def test_removing_leaves_a_plain_model_and_no_thread():
    run = Run()
    control = run.attach(pace="realtime")
    run.train(control)
    control.remove()
    control.remove()
    control.step(loss=1.0)
    modules = list(run.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert not run.optimizer._optimizer_step_pre_hooks
    assert not run.optimizer._optimizer_step_post_hooks
    assert all(thread.name != "tamiyo" for thread in threading.enumerate())


def test_an_error_in_the_users_own_loop_passes_through_and_cleans_up():
    run = Run()
    with pytest.raises(KeyError, match="mine"), run.attach() as control:
        run.train(control, steps=3)
        raise KeyError("mine")
    assert not any(m._forward_hooks for m in run.model.modules())


async def test_it_works_where_a_loop_is_running_as_in_a_notebook():
    run = Run()
    with run.attach(mode="autonomous", policy=AsksOnce()) as control:
        run.train(control)
    assert asyncio.get_running_loop().is_running()
    assert len(control.history) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "aggressive"}, ValueError),
        ({"pace": "sometimes"}, ValueError),
        ({"probe_budget": 2.0}, ValueError),
        ({"journal": "/dev/null/journal"}, OSError),
    ],
)
def test_bad_options_are_refused_and_leave_nothing_behind(options, error):
    run = Run()
    with pytest.raises(error):
        run.attach(**options)
    gc.collect()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in run.model.modules())
    assert all(thread.name != "tamiyo" for thread in threading.enumerate())


def test_a_model_without_parameters_is_observed_without_harm():
    model = nn.ReLU()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with tamiyo.attach(model, optimizer, pace="lockstep") as control:
        for _ in range(5):
            model(torch.randn(2, 2))
            control.step(loss=1.0)
    assert control.stats()["host"]["steps"] == 5


def checkpoint_of(run, control):
    """What a file on the disk gives back."""
    file = io.BytesIO()
    states = control, run.model, run.optimizer
    torch.save([holder.state_dict() for holder in states], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_resumed_run_goes_on_bit_for_bit_where_the_saved_one_was():
    run = Run()
    plan = Plan(
        {
            10: ("widen", ["0"], {"units": 3.0}),
            20: ("change_activation", ["1"], {"to": "gelu"}),
            30: ("scale_learning_rate", ["2"], {"factor": 0.5}),
            40: ("clip_gradients", [], {"ratio": 0.05}),
            50: ("add_seed", ["0"], SLOW_SEED),
        }
    )
    control = run.attach(mode="autonomous", probe_budget=0.0, run="mine")
    for step in range(60):
        plan.follow(control, step)
        run.train(control, steps=1)
    state, weights, moments = checkpoint_of(run, control)

    again = Run()
    again.data.set_state(run.data.get_state())
    resumed = again.attach(mode="autonomous", probe_budget=0.0, run=state["run"])
    resumed.load_state_dict(state)
    again.model.load_state_dict(weights)
    again.optimizer.load_state_dict(moments)
    names = [node.name for node in control.topology.nodes]
    assert [node.name for node in resumed.topology.nodes] == names
    for one, other in ((run, control), (again, resumed)):
        one.train(other, steps=60)
    assert resumed.stats()["host"]["steps"] == 120
    assert resumed.stats()["host"]["errors"] == {}
    assert resumed.state_dict() == control.state_dict()
    for one in (control, resumed):
        one.remove()
    first, second = run.model.state_dict(), again.model.state_dict()
    assert list(first) == list(second)
    assert "0.seed.0.weight" in first
    assert all(map(torch.equal, first.values(), second.values()))


def test_weights_of_a_removed_run_load_where_tamiyo_only_rebuilds():
    run = Run()
    with run.attach(mode="autonomous", probe_budget=0.0) as control:
        run.train(control, steps=3)
        Plan({3: ("widen", ["0"], {})}).follow(control, 3)
        run.train(control)
        state = control.state_dict()
    model = Run().model
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(run.model.state_dict())
    tamiyo.rebuild(model, state)
    model.load_state_dict(run.model.state_dict())
    assert {type(module).__module__.split(".")[0] for module in model.modules()} == {"torch"}


def test_a_state_is_loaded_before_the_first_step_or_not_at_all():
    run = Run()
    with run.attach() as control:
        state = control.state_dict()
        run.train(control, steps=1)
        with pytest.raises(RuntimeError, match="before the first step"):
            control.load_state_dict(state)


def test_a_run_that_was_saved_before_it_was_traced_is_traced_when_it_goes_on():
    with Run().attach() as control:
        state = control.state_dict()
    run = Run()
    with run.attach() as control:
        control.load_state_dict(state)
        run.train(control, steps=3)
        assert control.topology is not None
