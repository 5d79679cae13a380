import asyncio
import math

import pytest
import torch
from torch import nn

from tamiyo import _core
from tamiyo.contracts import (
    AdaptationResult,
    AdaptationType,
    ModelTopology,
    Outcome,
    PerformanceMetrics,
    Topic,
)
from tamiyo.host import HostSession
from tamiyo.oona import BusClosedError

EVERY_STEP = 1.0


def attach(run, client, **options):
    options = {"run": "run", "mode": "autonomous", **options}
    run.session = HostSession(run.model, run.optimizer, client, **options)
    return run.session


def send(client, *decisions):
    for decision in decisions:
        client.publish_nowait(Topic.DECISIONS, decision.to_bytes())


def drain(subscription):
    messages = []
    while (message := subscription.get_nowait()) is not None:
        messages.append(message.payload)
    return messages


def results_of(session):
    return {d.decision_id: (r.outcome, r.reason) for d, r in session.history}


@pytest.mark.parametrize("name", ["mlp", "residual", "conv", "language", "transformer", "shared"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_observed_run_is_bit_identical(loop, client, name, optimizer):
    plain = loop(name, optimizer)
    expected = plain.steps(12)
    watched = loop(name, optimizer)
    session = attach(
        watched, client, mode="observe", probe_budget=EVERY_STEP, snapshot_budget=EVERY_STEP
    )
    assert watched.steps(12) == expected
    assert session.stats().samples > 0
    assert session.stats().errors == {}
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)
    session.remove()
    for module in watched.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not watched.optimizer._optimizer_step_pre_hooks
    assert not watched.optimizer._optimizer_step_post_hooks


def test_what_is_published_is_what_the_collector_accepts(loop, client):
    subscription = client.subscribe(
        [Topic.HEALTH_SIGNALS, Topic.TOPOLOGY, Topic.PERFORMANCE_METRICS]
    )
    run = loop("mlp")
    session = attach(
        run, client, mode="observe", probe_budget=EVERY_STEP, total_steps=40, metrics_every=10
    )
    run.steps(20)
    session.report(val_loss=0.5, val_accuracy=0.75)
    messages = []
    while (message := subscription.get_nowait()) is not None:
        messages.append(message)
    topology = ModelTopology.from_bytes(messages[0].payload)
    assert topology == session.topology
    ingest = _core.Ingest("run", keep_every=1)
    signals = [m.payload for m in messages if m.topic == Topic.HEALTH_SIGNALS]
    assert ingest.ingest(signals) == len(signals) * len(topology)
    assert ingest.accounting()["total"]["lost"] == 0
    recent = ingest.recent(1000)
    assert set(recent["layer_id"]) == set(range(len(topology)))
    metrics = [
        PerformanceMetrics.from_bytes(m.payload)
        for m in messages
        if m.topic == Topic.PERFORMANCE_METRICS
    ]
    assert [m.step for m in metrics] == [10, 20, 20]
    assert metrics[0].progress == 0.25
    assert metrics[0].learning_rate == 0.05
    assert metrics[-1].validation_loss == 0.5
    assert metrics[-1].validation_accuracy == 0.75
    assert metrics[0].validation_loss is None
    assert math.isfinite(session.stats().overhead)


def test_observing_only_lists_advice(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client, mode="observe")
    run.steps(2)
    send(client, decide(AdaptationType.SCALE_LEARNING_RATE, factor=0.1))
    run.steps(2)
    assert [d.decision_id for d in session.advice] == ["d1"]
    assert session.history == ()
    assert run.optimizer.param_groups[0]["lr"] == 0.05


def test_confirming_and_rejecting(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client, mode="confirm")
    run.steps(2)
    kind = AdaptationType.SCALE_LEARNING_RATE
    send(
        client,
        decide(kind, name="yes", factor=0.1),
        decide(kind, name="no", factor=0.1),
        decide(kind, name="late", expires=4, factor=0.1),
    )
    run.step()
    assert {d.decision_id for d in session.waiting} == {"yes", "no", "late"}
    assert session.confirm("yes")
    assert session.reject("no")
    assert not session.confirm("unknown")
    run.steps(3)
    outcomes = {name: outcome for name, (outcome, _) in results_of(session).items()}
    assert outcomes == {
        "yes": Outcome.APPLIED,
        "no": Outcome.REFUSED,
        "late": Outcome.EXPIRED,
    }
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_without_a_loss_autonomous_waits_for_a_yes(loop, client, decide, caplog):
    run = loop("mlp")
    session = attach(run, client)
    for _ in range(3):
        run.backward()
        run.optimizer.step()
        session.step()
    send(client, decide(AdaptationType.SCALE_LEARNING_RATE, factor=0.1))
    session.step()
    assert session.stats().mode == "confirm"
    assert [d.decision_id for d in session.waiting] == ["d1"]
    assert sum("no loss" in record.message for record in caplog.records) == 1


def test_what_is_not_for_us_or_not_legal_is_not_applied(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client)
    run.steps(2)
    scale, swap = AdaptationType.SCALE_LEARNING_RATE, AdaptationType.CHANGE_ACTIVATION
    send(
        client,
        decide(scale, name="term", term=2, factor=1.0),
        decide(scale, name="old", term=1, factor=0.1),
        decide(scale, name="other", run="another", factor=0.1),
        decide(scale, name="term", term=2, factor=0.1),
        decide(scale, (99,), name="layer", term=2, factor=0.1),
        decide(scale, name="range", term=2, factor=1e9),
        decide(scale, name="word", term=2, factor="much"),
        decide(scale, name="unknown", term=2, factor=0.1, extra=1.0),
        decide(scale, (0, 0), name="twice", term=2, factor=0.1),
        decide(swap, (0,), name="to", term=2, to="cosine"),
        decide(swap, (4,), name="illegal", term=2, to="gelu"),
        decide(swap, name="whole", term=2, to="gelu"),
        decide(AdaptationType.WIDEN, (0,), name="widen", term=2),
        decide(AdaptationType.RESTORE, name="restore", term=2),
        decide(scale, name="late", term=2, expires=1, factor=0.1),
    )
    client.publish_nowait(Topic.DECISIONS, b"\xc1")
    run.steps(2)
    assert session.stats().ignored == {
        "older term": 1,
        "other run": 1,
        "duplicate": 1,
        "malformed": 1,
    }
    outcomes = results_of(session)
    late = outcomes.pop("late")
    outcomes.pop("term")
    assert late[0] is Outcome.EXPIRED
    assert {outcome for outcome, _ in outcomes.values()} == {Outcome.REFUSED}
    assert len(outcomes) == 10
    assert run.optimizer.param_groups[0]["lr"] == 0.05


def test_one_adaptation_at_a_time(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client, horizon=10)
    results = client.subscribe([Topic.RESULTS])
    run.steps(3)
    first = decide(AdaptationType.CLIP_GRADIENTS, name="first", ratio=1.0)
    send(client, first, decide(AdaptationType.CLIP_GRADIENTS, name="second", ratio=1.0))
    run.steps(15)
    assert results_of(session)["second"][0] is Outcome.REFUSED
    assert "first" in results_of(session)["second"][1]
    assert results_of(session)["first"][0] is Outcome.KEPT
    published = [AdaptationResult.from_bytes(payload) for payload in drain(results)]
    assert [(r.decision_id, r.outcome) for r in published] == [
        ("first", Outcome.APPLIED),
        ("second", Outcome.REFUSED),
        ("first", Outcome.KEPT),
    ]
    assert published[2].loss_after is not None
    session.remove()
    assert not run.optimizer._optimizer_step_pre_hooks


def test_an_adaptation_that_hurts_is_rolled_back_and_verified(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client)
    run.steps(60)
    send(client, decide(AdaptationType.SCALE_LEARNING_RATE, factor=1e3))
    run.steps(60)
    ((_, result),) = session.history
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.verified is True
    assert result.steps_lost > 0
    assert run.optimizer.param_groups[0]["lr"] == 0.05
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_a_run_that_became_nan_is_restored(loop, client, decide):
    run = loop("mlp", "adamw")
    session = attach(run, client, snapshot_budget=EVERY_STEP)
    run.steps(150)
    assert session.stats().snapshot_step is not None
    run.step(torch.full((4, 6), float("nan")))
    run.steps(3)
    assert session.stats().alarm == "loss"
    send(client, decide(AdaptationType.RESTORE))
    losses = run.steps(110)
    assert all(torch.isfinite(loss) for loss in losses[1:])
    ((_, result),) = session.history
    assert result.outcome is Outcome.KEPT
    assert result.steps_lost > 0
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-2)


def test_restore_pre_empts_an_adaptation_under_watch(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client, snapshot_budget=EVERY_STEP)
    run.steps(150)
    send(client, decide(AdaptationType.CHANGE_ACTIVATION, (1,), name="swap", to="gelu"))
    run.steps(3)
    assert isinstance(run.model[1], nn.GELU)
    assert session.topology.nodes[0].activation == "gelu"
    send(client, decide(AdaptationType.RESTORE, name="restore"))
    run.step()
    assert results_of(session)["swap"] == (Outcome.ROLLED_BACK, "pre-empted by restore")
    assert results_of(session)["restore"][0] is Outcome.APPLIED
    assert isinstance(run.model[1], nn.ReLU)


def test_an_adaptation_that_fails_half_way_leaves_the_run_as_it_was(loop, client, decide):
    class Fragile(nn.Linear):
        drawn = 0

        def reset_parameters(self):
            if Fragile.drawn > 1:
                raise RuntimeError("cannot draw")
            Fragile.drawn += 1
            super().reset_parameters()

    run = loop("mlp", "adamw")
    run.model = nn.Sequential(Fragile(6, 8), nn.ReLU(), Fragile(8, 8), nn.ReLU(), nn.Linear(8, 3))
    run.optimizer = torch.optim.AdamW(run.model.parameters(), 1e-2)
    session = attach(run, client)
    run.steps(3)
    Fragile.drawn = 1
    weights = [p.detach().clone() for p in run.model.parameters()]
    send(client, decide(AdaptationType.REINITIALIZE, (0, 2), scope="all"))
    session.step(loss=1.0)
    ((_, result),) = session.history
    assert result.outcome is Outcome.FAILED
    assert "cannot draw" in result.reason
    assert result.verified is True
    assert all(map(torch.equal, weights, run.model.parameters()))
    assert session.stats().errors == {}
    run.steps(3)


def test_a_hook_of_an_adaptation_that_fails_is_switched_off(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client, mode="autonomous")
    run.steps(3)
    send(client, decide(AdaptationType.CLIP_GRADIENTS, (0,), ratio=1.0))
    run.step()
    run.optimizer.grad_scale = torch.ones(7, 7)
    run.backward()
    with pytest.raises(AssertionError):
        run.optimizer.step()  # torch itself refuses; the hook before it must not raise
    run.optimizer.grad_scale = None
    run.steps(3)
    assert session.stats().errors == {"adaptation hooks": 1}


def test_a_pause_holds_decisions_back(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client)
    run.steps(2)
    session.pause()
    send(client, decide(AdaptationType.SCALE_LEARNING_RATE, factor=0.1))
    run.steps(2)
    assert run.optimizer.param_groups[0]["lr"] == 0.05
    session.resume()
    run.step()
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_without_room_for_a_snapshot_nothing_is_applied(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client, snapshot_memory=10)
    run.steps(2)
    send(client, decide(AdaptationType.SCALE_LEARNING_RATE, factor=0.1))
    run.step()
    assert results_of(session)["d1"][0] is Outcome.REFUSED
    assert "memory" in results_of(session)["d1"][1]


def test_what_was_adapted_stays_after_removal(loop, client, decide):
    run = loop("mlp")
    session = attach(run, client)
    run.steps(2)
    send(client, decide(AdaptationType.CHANGE_ACTIVATION, (1,), to="gelu"))
    run.steps(2)
    session.remove()
    session.remove()
    run.steps(2)
    assert type(run.model[1]) is nn.GELU
    assert session.stats().steps == 4


def test_a_closed_bus_does_not_reach_the_loop(loop, client):
    run = loop("mlp")
    session = attach(run, client, mode="observe", probe_budget=EVERY_STEP, metrics_every=2)
    run.steps(3)
    asyncio.run(client.close())
    run.steps(8)
    # When the next sample fits its budget is for the clock to say.
    for _ in range(2000):
        if "telemetry.layer.health_signals" in session.stats().lost:
            break
        run.step()
    stats = session.stats()
    assert stats.steps >= 11
    assert stats.errors == {}
    assert stats.lost["telemetry.model.performance_metrics"] >= 4
    assert stats.lost["telemetry.layer.health_signals"] > 0
    session.remove()
    with pytest.raises(BusClosedError):
        attach(loop("mlp"), client)


def test_a_full_control_queue_is_tried_again(loop, client, decide):
    slow = client.subscribe([Topic.RESULTS])
    for _ in range(1024):
        client.publish_nowait(Topic.RESULTS, b"")
    run = loop("mlp")
    session = attach(run, client)
    run.steps(2)
    send(client, decide(AdaptationType.WIDEN, (1,)))
    run.step()
    assert results_of(session)["d1"][0] is Outcome.REFUSED
    drain(slow)
    run.step()
    assert [AdaptationResult.from_bytes(m).decision_id for m in drain(slow)] == ["d1"]


def test_an_output_that_the_probe_cannot_read_switches_it_off(loop, client, caplog):
    class Odd(torch.Tensor):
        def detach(self):
            raise RuntimeError("not today")

    class Strange(nn.Linear):
        def forward(self, x):
            return super().forward(x).as_subclass(Odd)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.strange = Strange(6, 3)

        def forward(self, x):
            return self.strange(x).as_subclass(torch.Tensor)

    run = loop("mlp")
    run.model = Model()
    run.optimizer = torch.optim.SGD(run.model.parameters(), 0.1)
    session = attach(run, client, mode="observe", probe_budget=EVERY_STEP)
    run.steps(6)
    assert session.stats().errors == {"probe": 1}
    assert sum("probe failed" in record.message for record in caplog.records) == 1


def test_a_model_without_parameters_and_an_optimiser_without_state(loop, client):
    run = loop("mlp")
    run.model = nn.Sequential(nn.ReLU(), nn.Tanh())
    other = nn.Parameter(torch.zeros(1))
    run.optimizer = torch.optim.SGD([other], 0.1)
    run.session = HostSession(run.model, run.optimizer, client, run="run", probe_budget=EVERY_STEP)
    for _ in range(5):
        run.model(torch.randn(4, 6))
        other.grad = torch.ones(1)
        run.optimizer.step()
        run.session.step(loss=1.0)
    assert run.session.stats().errors == {}
    assert len(run.session.topology) == 2


def test_a_model_that_is_never_called_is_listed_without_edges(loop, client):
    run = loop("mlp")
    session = attach(run, client, mode="observe")
    for _ in range(4):
        session.step(loss=1.0)
    assert session.topology.edges == ()
    assert session.topology.notes


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "bold"},
        {"probe_budget": 2.0},
        {"snapshot_budget": -0.1},
        {"metrics_every": 0},
        {"horizon": 0},
        {"total_steps": -1},
    ],
)
def test_wrong_settings_are_refused_at_once(loop, client, options):
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[0]):
        attach(loop("mlp"), client, **options)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_healthy_runs_raise_no_alarm(client, loop, optimizer):
    for seed in range(10):
        run = loop("mlp", optimizer, seed)
        session = attach(run, client, mode="observe", probe_budget=EVERY_STEP)
        alarms = set()
        for _ in range(150):
            run.step()
            alarms.add(session.stats().alarm)
        session.remove()
        assert alarms == {None}


def test_a_report_that_is_no_measurement_is_dropped_alone(loop, client, caplog):
    run = loop("mlp")
    session = attach(run, client, mode="observe", metrics_every=1000)
    reports = client.subscribe([Topic.PERFORMANCE_METRICS])
    run.step()
    session.report(val_loss=0.5, val_accuracy=87.5)
    session.report(val_loss="low")
    session.report(val_loss=float("nan"), val_accuracy=0.5)
    (report,) = [PerformanceMetrics.from_bytes(message) for message in drain(reports)]
    assert report.validation_loss is None
    assert report.validation_accuracy == 0.5
    assert session.stats().errors == {"report": 2}
    assert sum("report failed, it goes on" in record.message for record in caplog.records) == 1


def test_a_snapshot_that_cannot_be_taken_leaves_the_alarms_on(loop, client):
    class Odd(torch.optim.lr_scheduler.ConstantLR):
        def state_dict(self):
            raise RuntimeError("not today")

    run = loop("mlp")
    scheduler = Odd(run.optimizer, 1.0)
    session = attach(run, client, mode="observe", scheduler=scheduler, snapshot_budget=EVERY_STEP)
    run.steps(60)
    assert session.stats().errors == {"snapshots": 1}
    run.step(torch.full((4, 6), float("nan")))
    assert session.stats().alarm == "loss"
