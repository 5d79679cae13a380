"""What the signals of a run say about its seeds, as a collector reads them off the bus."""

from itertools import pairwise

import numpy as np

from tamiyo import _core
from tamiyo.contracts import AdaptationType, Flag, Topic
from tamiyo.host import HostSession
from tamiyo.host.actions import ACTIONS
from tamiyo.host.lifecycle import Stage
from tamiyo.host.sample import Sample
from tamiyo.host.telemetry import Telemetry

SEED = {"units": 2.0, "training_steps": 3, "blending_steps": 4, "holding_steps": 2}


def received(subscription):
    """Columns of the only batch that was sent."""
    [message] = [subscription.get_nowait()]
    ingest = _core.Ingest("run", keep_every=1)
    ingest.ingest([message.payload])
    assert subscription.get_nowait() is None
    return ingest.recent(100)


def test_signals_follow_the_real_life_of_a_seed(loop, client):
    subscription = client.subscribe([Topic.HEALTH_SIGNALS])
    run = loop("mlp")
    session = HostSession(run.model, run.optimizer, client, run="run", probe_budget=0.0)
    run.session = session
    run.steps(3)
    context = session._desk.executor.context
    telemetry = Telemetry(client, "run")
    flags = np.zeros(len(session.topology), np.uint32)
    flags[2] = Flag.NONFINITE_WEIGHT
    rules = ACTIONS[AdaptationType.ADD_SEED].rules
    parameters = {name: rule.check(name, SEED.get(name)) for name, rule in rules.items()}
    ACTIONS[AdaptationType.ADD_SEED].apply(context, (0, 4), parameters)
    ACTIONS[AdaptationType.REMOVE_SEED].apply(
        context, (4,), {"blending_steps": 1.0, "schedule": "linear"}
    )
    (seed,) = context.seed_bed.alive()
    seen, stages = [], []
    for _ in range(12):
        stages.append(seed.stage)
        sample = Sample(0, {"flags": flags, "error_count": flags * 0}, flags * 0.0)
        telemetry.signals(sample, epoch=0, seeds=context.seed_bed)
        columns = received(subscription)
        assert not columns["total_seeds"][1:].any()
        assert not columns["active_seeds"][1:].any()
        assert list(columns["flags"][1:]) == list(flags[1:])
        ready = bool(columns["flags"][0] & Flag.READY_FOR_TRANSITION)
        seen.append((columns["total_seeds"][0], columns["active_seeds"][0], ready))
        run.step()
    changes = [one is not other for one, other in pairwise(stages)]
    assert [ready for *_, ready in seen][:-1] == changes
    assert [active for _, active, _ in seen] == [stage is not Stage.PERMANENT for stage in stages]
    assert {total for total, *_ in seen} == {1}
    assert set(stages) == {"germinated", "training", "blending", "holding", "permanent"}
    session.remove()


def test_a_session_sends_the_counts_of_its_seeds(loop, client):
    run = loop("mlp")
    run.session = session = HostSession(
        run.model, run.optimizer, client, run="run", probe_budget=1.0
    )
    run.steps(3)
    subscription = client.subscribe([Topic.HEALTH_SIGNALS])
    rules = ACTIONS[AdaptationType.ADD_SEED].rules
    parameters = {name: rule.check(name, None) for name, rule in rules.items()}
    ACTIONS[AdaptationType.ADD_SEED].apply(session._desk.executor.context, (2,), parameters)
    while not subscription.waiting:
        run.step()
    assert list(received(subscription)["active_seeds"]) == [0, 0, 1, 0, 0]
    session.remove()
