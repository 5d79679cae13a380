"""The service on a real bus: signals in, decisions out, results back, all of it written down."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tamiyo import _core, connect
from tamiyo.contracts import (
    AdaptationDecision,
    AdaptationResult,
    AdaptationType,
    HealthSignal,
    ModelTopology,
    Outcome,
    PerformanceMetrics,
    SignalBatch,
    Topic,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.policy import RulesPolicy, Verdict
from tamiyo.policy.budget import DecisionBudget
from tamiyo.service import ServiceConfig, TamiyoService, read_journal

LEGAL = (AdaptationType.REINITIALIZE, AdaptationType.SCALE_LEARNING_RATE)
TOPOLOGY = ModelTopology(
    run="r",
    nodes=tuple(
        TopologyNode(
            layer_id=i, name=f"l{i}", type="Linear", parameters=10, activation="relu", actions=LEGAL
        )
        for i in range(3)
    ),
    edges=(TopologyEdge(source=0, target=1), TopologyEdge(source=1, target=2)),
    actions=(AdaptationType.SCALE_LEARNING_RATE, AdaptationType.RESTORE),
)


class Asked:
    """A policy that decides what it was told to, whatever it is shown."""

    name, version = "asked", "1"

    def __init__(self, *adaptations):
        self.budget = DecisionBudget(99, 0, 99)
        self.asked = list(adaptations)

    def decide(self, state):
        if not self.asked:
            return Verdict(None, "nothing was asked")
        adaptation = self.asked.pop(0)
        decision = AdaptationDecision(
            decision_id=f"{adaptation}-{len(self.asked)}",
            run=state.topology.run,
            adaptation=adaptation,
            issued_at_step=state.step,
            expires_at_step=state.step + 50,
        )
        self.budget.charge(decision, state.epoch)
        return Verdict(decision, "asked")

    def make_decision(self, state):
        return self.decide(state).decision


class Trainer:
    """The other end of the bus: publishes real signals, reads decisions, answers."""

    def __init__(self, bus):
        self.bus = bus
        self.decisions = bus.subscribe([Topic.DECISIONS])
        self.step = 0
        bus.publish_nowait(Topic.TOPOLOGY, TOPOLOGY.to_bytes())

    def sample(self, dead=0.1):
        self.step += 10
        rows = [
            HealthSignal(
                layer_id=i,
                epoch=0,
                step=self.step,
                timestamp=1.7e9 + self.step,
                health_score=0.9 if i != 1 else 1 - dead,
                dead_neuron_ratio=0.1 if i != 1 else dead,
                update_ratio=1e-3,
                gradient_norm=1.0,
            )
            for i in range(3)
        ]
        payload = _core.encode(
            dict(SignalBatch.from_signals(rows).columns),
            run="r",
            producer="host",
            incarnation=1,
            seq=(self.step // 10 - 1) * 3,
        )
        self.bus.publish_nowait(Topic.HEALTH_SIGNALS, payload)

    async def decision(self):
        [message] = await asyncio.wait_for(self.decisions.get(), 30)
        return AdaptationDecision.from_bytes(message.payload)

    def answer(self, decision, outcome):
        result = AdaptationResult(
            decision_id=decision.decision_id, run="r", step=self.step, outcome=outcome
        )
        self.bus.publish_nowait(Topic.RESULTS, result.to_bytes())


@pytest.fixture
async def bus():
    client = connect("memory://")
    yield client
    await client.close()


async def test_a_dead_layer_leads_to_a_decision_about_that_layer(bus, tmp_path):
    config = ServiceConfig(journal=tmp_path / "journal.jsonl")
    trainer = Trainer(bus)
    service = TamiyoService(bus, RulesPolicy(), run="r", config=config)
    for dead in (0.1, 0.1, 1.0, 1.0, 1.0):
        trainer.sample(dead)
        await service.advance()
    decision = await trainer.decision()
    assert (decision.adaptation, decision.target) == (AdaptationType.REINITIALIZE, (1,))
    assert decision.policy == RulesPolicy().name
    assert decision.term == 1
    trainer.answer(decision, Outcome.KEPT)
    await service.advance()
    await service.shut_down()
    entries = list(read_journal(config.journal))
    events = [entry["event"] for entry in entries]
    assert events == ["started", "topology", "proposed", "result", "stopped"]
    proposed = entries[2]
    assert proposed["decision"]["decision_id"] == decision.decision_id
    assert proposed["layers"]["dead_neuron_ratio_last"][1] == 1.0
    assert proposed["checks"]


async def test_a_healthy_run_is_left_alone(bus):
    trainer = Trainer(bus)
    service = TamiyoService(bus, run="r")
    for _ in range(20):
        trainer.sample()
        verdict = await service.advance()
        assert verdict.decision is None
    assert service.stats()["cycle"]["verdicts"] == {"held": 20}
    await service.shut_down()


async def test_it_works_in_the_background_and_stops_cleanly(bus):
    trainer = Trainer(bus)
    policy = Asked(AdaptationType.REINITIALIZE)
    service = TamiyoService(bus, policy, run="r")
    running = asyncio.create_task(service.run())
    trainer.sample()
    decision = await trainer.decision()
    trainer.answer(decision, Outcome.KEPT)
    service.stop()
    await asyncio.wait_for(running, 30)
    stats = service.stats()
    assert stats["cycle"]["outcomes"] == {Outcome.KEPT: 1}
    assert not any(part["running"] for part in stats["parts"].values())


async def test_one_change_at_a_time_but_restore_comes_first(bus, tmp_path):
    config = ServiceConfig(journal=tmp_path / "j")
    trainer = Trainer(bus)
    policy = Asked(
        AdaptationType.REINITIALIZE, AdaptationType.SCALE_LEARNING_RATE, AdaptationType.RESTORE
    )
    service = TamiyoService(bus, policy, run="r", config=config)
    for _ in range(3):
        trainer.sample()
        await service.advance()
    assert (await trainer.decision()).adaptation is AdaptationType.REINITIALIZE
    assert (await trainer.decision()).adaptation is AdaptationType.RESTORE
    events = [entry["event"] for entry in read_journal(config.journal)]
    assert events == ["started", "topology", "proposed", "blocked", "proposed"]
    assert policy.budget.spent("r", trainer.step, 0) == 2
    await service.shut_down()


async def test_a_refused_decision_costs_nothing(bus):
    trainer = Trainer(bus)
    policy = Asked(AdaptationType.REINITIALIZE, AdaptationType.SCALE_LEARNING_RATE)
    service = TamiyoService(bus, policy, run="r")
    trainer.sample()
    await service.advance()
    trainer.answer(await trainer.decision(), Outcome.REFUSED)
    bus.publish_nowait(Topic.RESULTS, b"\xc1")
    trainer.sample()
    await service.advance()
    assert (await trainer.decision()).adaptation is AdaptationType.SCALE_LEARNING_RATE
    assert policy.budget.spent("r", trainer.step, 0) == 1
    assert service.stats()["cycle"]["refused_results"] == 1
    await service.shut_down()


async def test_a_policy_that_fails_is_restarted_and_collection_goes_on(bus, caplog):
    class Failing(Asked):
        def decide(self, state):
            if state.step < 30:
                raise ZeroDivisionError("bad weights")
            return super().decide(state)

    trainer = Trainer(bus)
    service = TamiyoService(bus, Failing(AdaptationType.REINITIALIZE), run="r")
    async with service:
        trainer.sample()
        while not service.stats()["parts"]["decide"]["restarts"]:
            await asyncio.sleep(0)
        trainer.sample()
        trainer.sample()
        await trainer.decision()
        stats = service.stats()
    assert "ZeroDivisionError" in stats["parts"]["decide"]["last_error"]
    assert stats["collection"]["accounting"]["total"]["sent"] == 9
    assert stats["parts"]["collect"]["restarts"] == 0


async def test_a_later_controller_has_a_higher_term(bus, tmp_path):
    config = ServiceConfig(journal=tmp_path / "j")
    terms = []
    for _ in range(3):
        service = TamiyoService(bus, run="r", config=config)
        terms.append(service.term)
        await service.shut_down()
    assert terms == [1, 2, 3]


async def test_a_bus_that_closes_ends_the_parts_without_an_error(bus):
    service = TamiyoService(bus, run="r")
    await service.start()
    await bus.close()
    await service.shut_down()
    assert all(not part["last_error"] for part in service.stats()["parts"].values())


async def test_with_nothing_wrong_it_rests_until_the_host_is_alarmed(bus):
    trainer = Trainer(bus)
    # A share so small that a rest would last for hours.
    config = ServiceConfig(pause_seconds=0, think_share=1e-9)
    service = TamiyoService(bus, Asked(), run="r", config=config)

    async def until(condition):
        async with asyncio.timeout(30):
            while not condition(service.stats()):
                await asyncio.sleep(0)

    async with service:
        trainer.sample()
        await until(lambda stats: stats["cycle"]["cycles"] == 1)
        trainer.sample()
        await until(lambda stats: stats["collection"]["accounting"]["total"]["sent"] == 6)
        for _ in range(100):
            await asyncio.sleep(0)
        assert service.stats()["cycle"]["cycles"] == 1
        metrics = PerformanceMetrics(run="r", step=30, timestamp=1.7e9, alarm="loss")
        bus.publish_nowait(Topic.PERFORMANCE_METRICS, metrics.to_bytes())
        await until(lambda stats: stats["cycle"]["cycles"] > 1)


@pytest.mark.parametrize("options", [{"pause_seconds": -1}, {"think_share": 0}])
def test_a_bad_configuration_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ServiceConfig(**options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_cleanly(number, tmp_path):
    journal = tmp_path / "j"
    code = f"""
        import asyncio
        from pathlib import Path
        from tamiyo import TamiyoService, connect
        from tamiyo.service import ServiceConfig

        async def main():
            service = TamiyoService(connect(), config=ServiceConfig(journal=Path({str(journal)!r})))
            running = asyncio.create_task(service.run())
            await asyncio.sleep(0)
            print("up", flush=True)
            await running

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
    assert [entry["event"] for entry in read_journal(journal)] == ["started", "stopped"]
