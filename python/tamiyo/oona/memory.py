"""The bus inside one process: bounded queues that any thread may fill and any loop may await.

One lock guards the queues. It is held for a few dozen nanoseconds of list work and never across
a callback, so a training thread that publishes does not wait for a reader.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from threading import Lock

from tamiyo.contracts.wire import MAX_MESSAGE_BYTES
from tamiyo.oona.bus import (
    BusClosedError,
    BusFullError,
    Message,
    TopicPolicy,
    TopicStats,
    default_policy,
)

__all__ = ["MemoryBus", "MemorySubscription", "shared_bus"]


class _Signal:
    """Wakes the tasks that wait for a change, on whichever event loop each of them lives."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def wait(self) -> asyncio.Future[None]:
        """A future that the next `take` resolves. Call under the bus's lock."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((loop, future))
        return future

    def take(self) -> Callable[[], None]:
        """Forget who waits and return what wakes them, to be called without the lock."""
        waiting, self._waiting = self._waiting, []

        def wake() -> None:
            for loop, future in waiting:
                # A loop that was closed meanwhile has nobody left to wake.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(_resolve, future)

        return wake


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class MemoryBus:
    """`OonaClient` over queues in this process."""

    def __init__(self, policy: Callable[[str], TopicPolicy] = default_policy) -> None:
        self._policy_of = policy
        self._lock = Lock()
        self._closed = False
        self._subscribers: dict[str, list[MemorySubscription]] = defaultdict(list)
        self._retained: dict[str, deque[Message]] = {}
        self._stats: dict[str, TopicStats] = defaultdict(TopicStats)
        self._room = _Signal()

    async def publish(self, topic: str, payload: bytes) -> None:
        """See `OonaClient.publish`."""
        while True:
            with self._lock:
                self._require_open()
                room = None if self._has_room(topic) else self._room.wait()
            if room is not None:
                await room
                continue
            try:
                self.publish_nowait(topic, payload)
            except BusFullError:  # another sender was faster
                continue
            return

    def publish_nowait(self, topic: str, payload: bytes) -> None:
        """See `OonaClient.publish_nowait`."""
        if len(payload) > MAX_MESSAGE_BYTES:
            raise ValueError(f"message of {len(payload)} bytes, at most {MAX_MESSAGE_BYTES}")
        message = Message(str(topic), payload)
        with self._lock:
            self._require_open()
            if not self._has_room(topic):
                raise BusFullError(f"a queue for {topic} is full")
            policy = self._policy_of(topic)
            if policy.retained:
                self._retained.setdefault(topic, deque(maxlen=policy.retained)).append(message)
            wakes = [queue._put(message, policy) for queue in self._subscribers[topic]]
        for wake in wakes:
            wake()

    def subscribe(self, topics: Iterable[str]) -> "MemorySubscription":
        """See `OonaClient.subscribe`."""
        subscription = MemorySubscription(self, tuple(str(topic) for topic in topics))
        with self._lock:
            self._require_open()
            for topic in subscription.topics:
                self._subscribers[topic].append(subscription)
                policy = self._policy_of(topic)
                for message in self._retained.get(topic, ()):
                    subscription._put(message, policy)
        return subscription

    def stats(self) -> Mapping[str, TopicStats]:
        """See `OonaClient.stats`."""
        with self._lock:
            return {topic: replace(counts) for topic, counts in self._stats.items()}

    async def close(self) -> None:
        """See `OonaClient.close`."""
        with self._lock:
            self._closed = True
            subscriptions = {id(s): s for queues in self._subscribers.values() for s in queues}
            wake = self._room.take()
        wake()
        for subscription in subscriptions.values():
            subscription.close()

    def _require_open(self) -> None:
        if self._closed:
            raise BusClosedError("the bus is closed")

    def _has_room(self, topic: str) -> bool:
        policy = self._policy_of(topic)
        return policy.sheds or all(
            queue._waiting(topic) < policy.capacity for queue in self._subscribers[topic]
        )

    def _forget(self, subscription: "MemorySubscription") -> None:
        for topic in subscription.topics:
            if subscription in self._subscribers[topic]:
                self._subscribers[topic].remove(subscription)


class MemorySubscription:
    """`Subscription` of a `MemoryBus`. Its queue is guarded by the bus's lock."""

    def __init__(self, bus: MemoryBus, topics: tuple[str, ...]) -> None:
        self.topics = topics
        self._bus = bus
        self._queue: deque[Message] = deque()
        self._counts: dict[str, int] = dict.fromkeys(topics, 0)
        self._arrived = _Signal()
        self._closed = False

    @property
    def waiting(self) -> int:
        """See `Subscription.waiting`."""
        return len(self._queue)

    def get_nowait(self) -> Message | None:
        """See `Subscription.get_nowait`."""
        messages = self._take(1)
        return messages[0] if messages else None

    async def get(self, limit: int = 1) -> list[Message]:
        """See `Subscription.get`."""
        while True:
            with self._bus._lock:
                must_wait = not self._queue and not self._closed
                arrived = self._arrived.wait() if must_wait else None
            if arrived is not None:
                await arrived
            messages = self._take(limit)
            if messages:
                return messages

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            try:
                messages = await self.get()
            except BusClosedError:
                return
            for message in messages:
                yield message

    def close(self) -> None:
        """See `Subscription.close`."""
        with self._bus._lock:
            self._closed = True
            self._bus._forget(self)
            wakes = (self._arrived.take(), self._bus._room.take())
        for wake in wakes:
            wake()

    def _put(self, message: Message, policy: TopicPolicy) -> Callable[[], None]:
        """Queue a message under the lock; the return value wakes the reader, without the lock."""
        stats = self._bus._stats[message.topic]
        stats.published += 1
        if self._counts[message.topic] >= policy.capacity:
            self._shed_oldest(message.topic)
        self._queue.append(message)
        self._counts[message.topic] += 1
        stats.queued += 1
        return self._arrived.take()

    def _shed_oldest(self, topic: str) -> None:
        oldest = next(i for i, message in enumerate(self._queue) if message.topic == topic)
        del self._queue[oldest]
        self._counts[topic] -= 1
        self._bus._stats[topic].queued -= 1
        self._bus._stats[topic].shed += 1

    def _take(self, limit: int) -> list[Message]:
        with self._bus._lock:
            if not self._queue and self._closed:
                raise BusClosedError("the subscription is closed")
            messages = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
            for message in messages:
                self._counts[message.topic] -= 1
                self._bus._stats[message.topic].queued -= 1
                self._bus._stats[message.topic].delivered += 1
            wake = self._bus._room.take()
        wake()
        return messages

    def _waiting(self, topic: str) -> int:
        return self._counts[topic]


_shared: dict[str, MemoryBus] = {}
_shared_lock = Lock()


def shared_bus(name: str) -> MemoryBus:
    """The open bus of that name in this process; a closed one gives way to a new one."""
    with _shared_lock:
        bus = _shared.get(name)
        if bus is None or bus._closed:
            bus = _shared[name] = MemoryBus()
        return bus
