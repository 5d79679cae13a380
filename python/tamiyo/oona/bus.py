"""What every bus offers, whatever carries it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tamiyo.contracts.topics import Topic

__all__ = [
    "BusClosedError",
    "BusFullError",
    "BusURLError",
    "Message",
    "OonaClient",
    "Subscription",
    "TopicPolicy",
    "TopicStats",
    "default_policy",
]


class BusURLError(ValueError):
    """An address that no bus answers to."""


class BusClosedError(RuntimeError):
    """The bus or the subscription is closed."""


class BusFullError(RuntimeError):
    """A control queue is full and the message was not sent; nothing was shed to make room."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was published."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class TopicPolicy:
    """How many messages wait for each subscriber of a topic, and what gives when that is full."""

    capacity: int
    sheds: bool
    """Whether the oldest message makes room (counted); otherwise the sender is refused."""
    retained: int = 0
    """How many of the latest messages a new subscriber is given at once."""


def default_policy(topic: str) -> TopicPolicy:
    """Telemetry sheds its oldest, control refuses; a topology waits for those who come late."""
    if topic == Topic.TOPOLOGY:
        return TopicPolicy(capacity=1024, sheds=False, retained=64)
    if topic.startswith("control."):
        return TopicPolicy(capacity=1024, sheds=False)
    return TopicPolicy(capacity=4096, sheds=True)


@dataclass(slots=True)
class TopicStats:
    """Messages of one topic, over all its subscribers: published = delivered + shed + queued.

    `published` counts a message once for each subscriber that it was meant for.
    """

    published: int = 0
    delivered: int = 0
    shed: int = 0
    queued: int = 0


class Subscription(Protocol):
    """A queue of messages of some topics, in the order of publishing."""

    @property
    def waiting(self) -> int:
        """Messages that can be taken at once."""

    def get_nowait(self) -> Message | None:
        """The next message, or `None` when none waits.

        Raises:
            BusClosedError: closed, and everything that had arrived was taken.
        """

    async def get(self, limit: int = 1) -> list[Message]:
        """Wait for at least one message, then take up to `limit`.

        Raises:
            BusClosedError: closed, and everything that had arrived was taken.
        """

    def __aiter__(self) -> AsyncIterator[Message]: ...

    def close(self) -> None:
        """Take no more messages. Those that wait can still be read."""


class OonaClient(Protocol):
    """A connection to the bus. All methods may be called from any thread."""

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send; on a full control queue, wait for room.

        Raises:
            BusClosedError: the bus is closed.
            ValueError: the payload is larger than a message may be.
        """

    def publish_nowait(self, topic: str, payload: bytes) -> None:
        """Send without ever waiting.

        Raises:
            BusFullError: a subscriber's control queue is full.
            BusClosedError: the bus is closed.
            ValueError: the payload is larger than a message may be.
        """

    def subscribe(self, topics: Iterable[str]) -> Subscription:
        """Messages of `topics` from now on, and those that a topic's policy retains.

        Raises:
            BusClosedError: the bus is closed.
        """

    def stats(self) -> Mapping[str, TopicStats]:
        """Counts per topic since the bus was opened."""

    async def close(self) -> None:
        """Close the bus and every subscription. Closing twice is harmless."""
