"""Oona, the message bus between a training run and its controller.

`connect("memory://")` gives a bus inside this process. A host publishes telemetry on it and
takes decisions from it; a collector and a service sit at the other end.
"""

from urllib.parse import urlsplit

from tamiyo.oona.bus import (
    BusClosedError,
    BusFullError,
    BusURLError,
    Message,
    OonaClient,
    Subscription,
    TopicPolicy,
    TopicStats,
)
from tamiyo.oona.memory import MemoryBus, shared_bus

__all__ = [
    "BusClosedError",
    "BusFullError",
    "BusURLError",
    "Message",
    "OonaClient",
    "Subscription",
    "TopicPolicy",
    "TopicStats",
    "connect",
]


def connect(url: str = "memory://") -> OonaClient:
    """A client of the bus at `url`.

    `memory://` is a new bus that only this client reaches; `memory://NAME` is the bus of that
    name in this process, shared by everybody who connects to it.

    Raises:
        BusURLError: the address has another scheme, or parts that the scheme does not take.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory":
        raise BusURLError(f"no bus for {url!r}: this version speaks memory:// only")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise BusURLError(f"{url!r}: memory:// takes a name and nothing else")
    return shared_bus(parts.netloc) if parts.netloc else MemoryBus()
