"""What every bus promises. Each test runs against each kind of bus."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.contracts import Topic
from tamiyo.oona import BusClosedError, BusFullError, BusURLError, TopicPolicy, connect
from tamiyo.oona.memory import MemoryBus


@pytest.fixture
async def bus():
    client = connect("memory://")
    yield client
    await client.close()


async def test_messages_arrive_in_order_and_unchanged(bus):
    subscription = bus.subscribe([Topic.DECISIONS, Topic.RESULTS])
    sent = [(Topic.DECISIONS, b"a"), (Topic.RESULTS, bytes(range(256))), (Topic.DECISIONS, b"")]
    for topic, payload in sent:
        await bus.publish(topic, payload)
    received = await subscription.get(10)
    assert [(message.topic, message.payload) for message in received] == sent


async def test_each_subscriber_gets_every_message_of_its_topics_only(bus):
    one, other = bus.subscribe([Topic.RESULTS]), bus.subscribe([Topic.RESULTS, Topic.DECISIONS])
    bus.publish_nowait(Topic.DECISIONS, b"d")
    bus.publish_nowait(Topic.RESULTS, b"r")
    assert [message.payload for message in await one.get(9)] == [b"r"]
    assert [message.payload for message in await other.get(9)] == [b"d", b"r"]
    assert one.get_nowait() is None


async def test_a_late_subscriber_learns_the_topology_but_no_old_decision(bus):
    bus.publish_nowait(Topic.TOPOLOGY, b"model")
    bus.publish_nowait(Topic.DECISIONS, b"old")
    late = bus.subscribe([Topic.TOPOLOGY, Topic.DECISIONS])
    assert late.get_nowait().payload == b"model"
    assert late.get_nowait() is None


async def test_get_waits_for_a_message_from_another_thread(bus):
    subscription = bus.subscribe([Topic.RESULTS])
    waiting = asyncio.create_task(subscription.get())
    await asyncio.sleep(0)
    thread = threading.Thread(target=bus.publish_nowait, args=(Topic.RESULTS, b"hello"))
    thread.start()
    [message] = await asyncio.wait_for(waiting, 10)
    thread.join()
    assert message.payload == b"hello"


async def test_control_refuses_when_full_and_loses_nothing():
    bus = MemoryBus(lambda topic: TopicPolicy(capacity=2, sheds=False))
    subscription = bus.subscribe([Topic.DECISIONS])
    bus.publish_nowait(Topic.DECISIONS, b"1")
    bus.publish_nowait(Topic.DECISIONS, b"2")
    with pytest.raises(BusFullError):
        bus.publish_nowait(Topic.DECISIONS, b"3")
    waiting = asyncio.create_task(bus.publish(Topic.DECISIONS, b"3"))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert subscription.get_nowait().payload == b"1"
    await asyncio.wait_for(waiting, 10)
    assert [message.payload for message in await subscription.get(9)] == [b"2", b"3"]
    await bus.close()


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=3)), max_size=40),
    st.integers(1, 5),
)
def test_telemetry_keeps_the_newest_of_each_topic_and_counts_the_rest(messages, capacity):
    bus = MemoryBus(lambda topic: TopicPolicy(capacity=capacity, sheds=True))
    subscription = bus.subscribe(["a", "b"])
    for topic, payload in messages:
        bus.publish_nowait(topic, payload)
    received = []
    while (message := subscription.get_nowait()) is not None:
        received.append((message.topic, message.payload))
    for topic in "ab":
        of_topic = [message for message in messages if message[0] == topic]
        assert [m for m in received if m[0] == topic] == of_topic[-capacity:]
        if of_topic:
            counts = bus.stats()[topic]
            assert counts.published == len(of_topic)
            assert counts.shed == max(0, len(of_topic) - capacity)
            assert counts.published == counts.delivered + counts.shed + counts.queued


async def test_many_threads_publish_and_every_message_is_accounted_for():
    bus = MemoryBus(lambda topic: TopicPolicy(capacity=64, sheds=True))
    subscription = bus.subscribe(["t"])

    def publish():
        for _ in range(2000):
            bus.publish_nowait("t", b"x")

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    received = 0
    while any(thread.is_alive() for thread in threads):
        received += subscription.get_nowait() is not None
    # The reader may have been fast enough to leave nothing, for which `get` would wait.
    while subscription.get_nowait() is not None:
        received += 1
    counts = bus.stats()["t"]
    assert (counts.published, counts.delivered) == (8000, received)
    assert counts.shed == 8000 - received


async def test_closing_wakes_readers_and_writers_after_what_had_arrived(bus):
    subscription = bus.subscribe([Topic.RESULTS])
    idle = bus.subscribe([Topic.DECISIONS])
    waiting = asyncio.create_task(idle.get())
    bus.publish_nowait(Topic.RESULTS, b"last")
    await asyncio.sleep(0)
    await bus.close()
    await bus.close()
    assert [message.payload async for message in subscription] == [b"last"]
    with pytest.raises(BusClosedError):
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(BusClosedError):
        await bus.publish(Topic.RESULTS, b"")
    with pytest.raises(BusClosedError):
        bus.subscribe([Topic.RESULTS])


async def test_a_writer_that_waits_for_room_is_told_that_the_bus_closed():
    bus = MemoryBus(lambda topic: TopicPolicy(capacity=1, sheds=False))
    bus.subscribe([Topic.RESULTS])
    bus.publish_nowait(Topic.RESULTS, b"1")
    waiting = asyncio.create_task(bus.publish(Topic.RESULTS, b"2"))
    await asyncio.sleep(0)
    await bus.close()
    with pytest.raises(BusClosedError):
        await asyncio.wait_for(waiting, 10)


async def test_a_message_over_the_size_limit_is_refused(bus):
    with pytest.raises(ValueError, match="at most"):
        bus.publish_nowait(Topic.RESULTS, bytes(5 << 20))


async def test_named_buses_are_shared_and_unnamed_ones_private():
    one, same, private = connect("memory://n"), connect("memory://n"), connect()
    subscription, elsewhere = same.subscribe(["t"]), private.subscribe(["t"])
    one.publish_nowait("t", b"x")
    assert subscription.get_nowait().payload == b"x"
    assert elsewhere.get_nowait() is None
    await one.close()
    fresh = connect("memory://n")
    fresh.publish_nowait("t", b"y")
    await fresh.close()


@pytest.mark.parametrize(
    "url", ["", "nowhere", "http://x", "redis://x", "memory://n/x", "memory://?a=1"]
)
def test_an_address_without_a_bus_is_refused(url):
    with pytest.raises(BusURLError):
        connect(url)
