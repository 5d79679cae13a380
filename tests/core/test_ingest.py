import threading

import numpy as np
import pytest

from tamiyo import _core


def test_recent_shows_both_lanes_in_time_order(signals, message):
    ingest = _core.Ingest(keep_every=1)
    health = np.where(np.arange(20) % 4 == 0, 0.1, 0.9)
    ingest.ingest([message(signals(20, health_score=health))])
    recent = ingest.recent(100)
    assert recent["step"].tolist() == list(range(20))
    assert all(column.flags.owndata or column.base is not None for column in recent.values())
    assert ingest.recent(7)["step"].tolist() == [0, 4, 8, 12, 16, 18, 19]
    assert ingest.recent(2)["step"].tolist() == [12, 16]
    assert ingest.recent(0)["step"].tolist() == []


def test_for_layer_shows_one_layer(signals, message):
    ingest = _core.Ingest(keep_every=1)
    ingest.ingest([message(signals(30, layer_id=np.arange(30) % 3))])
    assert ingest.for_layer(1, 2)["step"].tolist() == [25, 28]
    assert ingest.for_layer(7, 5)["step"].tolist() == []


def test_drain_removes_urgent_signals_first(signals, message, balanced):
    ingest = _core.Ingest(keep_every=1)
    ingest.ingest([message(signals(6, health_score=[0.9, 0.9, 0.1, 0.9, 0.9, 0.1]))])
    assert ingest.drain(4)["step"].tolist() == [2, 5, 0, 1]
    assert balanced(ingest)["drained"] == 4
    assert ingest.drain(4)["step"].tolist() == [3, 4]
    assert balanced(ingest)["held"] == 0


def test_old_signals_are_overwritten_and_counted(signals, message, balanced):
    ingest = _core.Ingest(keep_every=1, capacity=10)
    for seq in range(0, 90, 9):
        ingest.ingest([message(signals(9, step=np.arange(seq, seq + 9)), seq=seq)])
        assert balanced(ingest)["held"] <= 10
    total = balanced(ingest)
    assert (total["held"], total["overwritten"]) == (8, 82)
    assert ingest.recent(100)["step"].tolist() == list(range(82, 90))


def test_gaps_are_lost_until_a_late_batch_fills_them(signals, message, balanced):
    ingest = _core.Ingest()
    batches = {seq: message(signals(5), seq=seq) for seq in (0, 5, 10, 15)}
    ingest.ingest([batches[5], batches[15]])
    assert (balanced(ingest)["sent"], balanced(ingest)["lost"]) == (20, 10)
    assert ingest.ingest([batches[10]]) == 5
    assert (balanced(ingest)["sent"], balanced(ingest)["lost"]) == (20, 5)
    assert ingest.ingest([batches[10]]) == 0
    assert balanced(ingest)["duplicated"] == 5
    assert ingest.layers()["count"].tolist() == [15]


def test_a_restart_loses_nothing(signals, message, balanced):
    ingest = _core.Ingest()
    ingest.ingest([message(signals(5), seq=seq) for seq in (0, 5)])
    ingest.ingest([message(signals(5), incarnation=2)])
    assert balanced(ingest)["lost"] == 0
    assert set(ingest.accounting()["producers"]) == {"host/1", "host/2"}


def test_one_run_is_collected(signals, message, balanced):
    ingest = _core.Ingest()
    assert ingest.run is None
    ingest.ingest([message(signals(1), run="first"), message(signals(1), run="second")])
    assert ingest.run == "first"
    assert balanced(ingest)["sent"] == 1
    assert ingest.accounting()["unreadable"] == {"foreign run": 1}
    assert not ingest.adopt("second")
    bound = _core.Ingest()
    assert bound.adopt("second")
    assert bound.run == "second"
    assert _core.Ingest("third").run == "third"


def test_keys_are_bounded_but_declared_layers_are_not(signals, message, balanced):
    ingest = _core.Ingest(max_keys=4)
    ingest.declare(np.array([100, 101], "u4"))
    assert ingest.ingest([message(signals(5, layer_id=np.arange(5)))]) == 0
    assert ingest.ingest([message(signals(4, layer_id=np.arange(4)), seq=5)]) == 4
    assert ingest.ingest([message(signals(2, layer_id=[100, 101]), seq=9)]) == 2
    assert ingest.ingest([message(signals(2, layer_id=[100, 4]), seq=11)]) == 0
    assert balanced(ingest)["refused"] == {"too many keys": 7}
    assert ingest.layers()["layer_id"].tolist() == [0, 1, 2, 3, 100, 101]
    with pytest.raises(TypeError):
        ingest.declare(np.array([1.5]))


def test_the_books_balance_with_threads(signals, message, balanced):
    ingest = _core.Ingest("run", capacity=300, keep_every=2)
    batches, n = 150, 64
    rng = np.random.default_rng(0)
    columns = signals(n, layer_id=np.arange(n) % 8, health_score=rng.random(n))
    start = threading.Barrier(5)
    finished = threading.Event()
    drained = []

    def produce(name):
        messages = [message(columns, producer=name, seq=at * n) for at in range(batches)]
        del messages[40:50]
        start.wait()
        for one in messages:
            ingest.ingest([one])

    def consume():
        start.wait()
        while not finished.is_set():
            drained.append(len(ingest.drain(50)["step"]))
            balanced(ingest)
            ingest.layers()

    producers = [threading.Thread(target=produce, args=(name,)) for name in "abcd"]
    consumer = threading.Thread(target=consume)
    for thread in [*producers, consumer]:
        thread.start()
    for thread in producers:
        thread.join()
    finished.set()
    consumer.join()
    total = balanced(ingest)
    assert total["sent"] == 4 * batches * n
    assert total["lost"] == 4 * 10 * n
    assert total["drained"] == sum(drained)
    assert total["held"] == len(ingest.recent(1000)["step"]) <= 300


def test_senseless_settings_and_arguments_are_refused():
    for setting in ({"capacity": 1}, {"window": 0}, {"keep_every": 0}, {"max_keys": 0}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            _core.Ingest(**setting)
    with pytest.raises(TypeError):
        _core.Ingest().ingest(b"one message instead of a list")
    with pytest.raises(TypeError):
        _core.Ingest().ingest(["text"])
