"""Live episodes over a real bus, collector and graph builder; the run is a list of its reports."""

import asyncio
import math

import pytest
import torch

import tamiyo
from tamiyo.contracts import (
    AdaptationResult,
    AdaptationType,
    ModelTopology,
    Outcome,
    PerformanceMetrics,
    Topic,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.graph import ModelGraphBuilder
from tamiyo.learn.live import LiveEpisodes, LiveSettings
from tamiyo.learn.rewards import RewardConfig

LENGTH = 4
SETTINGS = LiveSettings(interval_steps=10, rewards=RewardConfig(episode_length=LENGTH))
TOPOLOGY = ModelTopology(
    run="live",
    nodes=tuple(
        TopologyNode(
            layer_id=layer,
            name=f"net.{layer}",
            type="Linear",
            parameters=10,
            shape=(4,),
            actions=(AdaptationType.REINITIALIZE, AdaptationType.PRUNE),
        )
        for layer in range(3)
    ),
    edges=(TopologyEdge(source=0, target=1), TopologyEdge(source=1, target=2)),
    actions=(AdaptationType.RESTORE, AdaptationType.SCALE_LEARNING_RATE),
)


class Run:
    """A run whose accuracy at each report is given."""

    def __init__(self):
        self.bus = tamiyo.connect("memory://")
        self.collector = tamiyo.ProductionHealthCollector(self.bus, run="live")
        self.step = 0

    async def start(self):
        await self.collector.start_intelligent_collection()
        await self.bus.publish(Topic.TOPOLOGY, TOPOLOGY.to_bytes())

    async def report(self, accuracy=None, **fields):
        """One report, and everybody else's turn until it has been seen."""
        report = PerformanceMetrics(
            run="live",
            step=self.step,
            timestamp=float(self.step),
            loss=1.0,
            validation_accuracy=accuracy,
            **fields,
        )
        self.step += 10
        revision = self.collector.revision
        await self.bus.publish(Topic.PERFORMANCE_METRICS, report.to_bytes())
        await self.collector.wait_for_change(revision)
        for _ in range(20):
            await asyncio.sleep(0)

    async def stop(self):
        await self.collector.stop_collection()
        await self.bus.close()


@pytest.fixture
async def run():
    run = Run()
    await run.start()
    return run


@pytest.fixture
def make_episodes(run, make_network):
    def make(execute=None, settings=SETTINGS, seed=0):
        return LiveEpisodes(
            run.collector,
            ModelGraphBuilder(),
            make_network(),
            settings,
            execute,
            torch.Generator().manual_seed(seed),
        )

    return make


async def test_a_watched_episode_has_the_horizons_length_and_nobody_drew_it(run, make_episodes):
    episodes = make_episodes()
    task = asyncio.create_task(episodes.next(0.1, version=3))
    for report in range(LENGTH + 1):
        assert not task.done()
        await run.report(0.5 + 0.01 * report)
    episode = await task
    (segment,) = episode.segments
    assert episode.ended == "horizon"
    assert len(segment) == LENGTH
    assert segment.truncated.tolist() == [False] * (LENGTH - 1) + [True]
    assert not segment.sampled.any()
    assert not segment.adapt.any()
    assert segment.policy_version == 3
    # A run that nothing was done to is its own twin.
    assert segment.reward.tolist() == [0.0] * LENGTH
    assert episode.reward == 0.0
    await run.stop()


async def test_a_run_that_is_never_evaluated_teaches_nothing(run, make_episodes):
    task = asyncio.create_task(make_episodes().next(0.1, version=0))
    for _ in range(LENGTH + 1):
        await run.report()
    episode = await task
    assert math.isnan(episode.reward)
    assert episode.segments == ()
    await run.stop()


async def test_the_end_of_the_run_ends_its_episode(run, make_episodes):
    episodes = make_episodes()
    task = asyncio.create_task(episodes.next(0.0, version=0))
    for _ in range(3):
        await run.report(0.5)
    await run.stop()
    episode = await task
    assert episode.ended == "run"
    assert [len(segment) for segment in episode.segments] == [2]
    assert await episodes.next(0.0, version=0) is None


async def test_silence_is_the_end_of_a_run(run, make_episodes):
    settings = LiveSettings(interval_steps=10, silence_seconds=0.05)
    assert await make_episodes(settings=settings).next(0.0, version=0) is None
    await run.stop()


def warm(reports):
    """A learning curve long and smooth enough for its forecast to be trusted."""
    return [0.9 - 0.6 * (1 + report) ** -0.7 for report in range(reports)]


async def play(run, episodes, curve, *, restorable=False, after_report=lambda: None):
    """All episodes of a run with this learning curve."""
    found = []
    task = asyncio.create_task(episodes.next(0.9, version=0))
    for accuracy in curve:
        await run.report(accuracy, snapshot_step=0 if restorable else None)
        after_report()
        if task.done():
            found.append(task.result())
            task = asyncio.create_task(episodes.next(0.9, version=0))
            await asyncio.sleep(0)
    await run.stop()
    found.append(await task)
    return [episode for episode in found if episode is not None]


@pytest.mark.parametrize("outcome", [Outcome.APPLIED, Outcome.REFUSED])
async def test_what_was_carried_out_is_sampled_and_what_was_refused_is_not(
    run, make_episodes, outcome
):
    asked = []

    async def execute(decision):
        asked.append(decision)
        return AdaptationResult(
            decision_id=decision.decision_id, run="live", step=run.step, outcome=outcome
        )

    episodes = await play(run, make_episodes(execute), warm(60))
    assert asked
    assert {decision.run for decision in asked} == {"live"}
    assert all(decision.log_prob < 0 for decision in asked)
    steps = [(s.adapt[i], s.sampled[i], s.log_prob[i]) for e in episodes for s in e.segments
             for i in range(len(s))]  # fmt: skip
    acted = [(sampled, log_prob) for adapt, sampled, log_prob in steps if adapt]
    if outcome is Outcome.APPLIED:
        drawn = [pytest.approx(decision.log_prob, abs=1e-5) for decision in asked]
        assert all(sampled for sampled, _ in acted)
        assert acted
        assert all(any(log_prob == one for one in drawn) for _, log_prob in acted)
    else:
        assert not acted
        assert any(not sampled for _, sampled, _ in steps)
        assert any(sampled for _, sampled, _ in steps)


async def test_a_restore_ends_the_episode(run, make_episodes):
    async def execute(decision):
        outcome = Outcome.REFUSED
        if decision.adaptation is AdaptationType.RESTORE:
            outcome = Outcome.APPLIED
        return AdaptationResult(
            decision_id=decision.decision_id, run="live", step=run.step, outcome=outcome
        )

    episodes = await play(run, make_episodes(execute), warm(60), restorable=True)
    assert "restore" in {episode.ended for episode in episodes}
    for episode in episodes:
        kinds = [s.type[i] for s in episode.segments for i in range(len(s)) if s.adapt[i]]
        assert len(kinds) == (episode.ended == "restore" and bool(episode.segments))


async def test_a_later_result_becomes_the_target_of_the_safety_head(run, make_episodes):
    asked = []

    async def execute(decision):
        asked.append(decision)
        return AdaptationResult(
            decision_id=decision.decision_id, run="live", step=run.step, outcome=Outcome.APPLIED
        )

    episodes = make_episodes(execute)

    def take_back():
        for decision in asked:
            result = AdaptationResult(
                decision_id=decision.decision_id,
                run="live",
                step=run.step,
                outcome=Outcome.ROLLED_BACK,
            )
            episodes.take_result(result)
        asked.clear()

    found = await play(run, episodes, warm(60), after_report=take_back)
    targets = [s.targets[i] for e in found for s in e.segments for i in range(len(s)) if s.adapt[i]]
    assert targets
    assert all(target[0] == 0.0 and target[1] == 1.0 for target in targets)
