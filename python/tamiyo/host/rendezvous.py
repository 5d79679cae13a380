"""Ranks of a data-parallel run come together at one step, through the store of their process group.

Nothing is collective until there is something to decide. Every `INTERVAL` steps a follower asks the
store whether the leader has called for that step, which is one short request to a server thread and
waits for nobody. A call names a step at least `INTERVAL` steps ahead: ranks that average gradients
at every step cannot be that far apart, so each of them hears of it in time. A rank that misses it
all the same is missed in the roll-call, and then nobody acts.

Whether ranks act is never a matter of who waits longer: it is written once, by compare-and-set,
and read by all.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d

__all__ = ["INTERVAL", "Rendezvous", "store_of"]

INTERVAL = 16
"""Steps between two looks for a call."""
TRIES = 3
"""Roll-calls in a row that may fail before the leader gives up."""
_LIVE: Counter[str] = Counter()
"""Sessions of this process by what they train, so that two of them do not share keys."""
_YES, _NO = b"yes", b"no"


class Rendezvous:
    """One rank's side of it: rank 0 leads, the others follow.

    Args:
        store: The process group's store.
        rank: This rank.
        size: Number of ranks.
        subject: What is trained; ranks with another subject do not meet.
        patience: Longest wait for another rank that is known to be there, in seconds.
        roll_call: Longest wait of the leader for ranks to come, in seconds.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        *,
        subject: str,
        patience: float = 30.0,
        roll_call: float = 2.0,
    ) -> None:
        self.rank = rank
        self.followers = range(1, size)
        self._subject = subject
        self._store: Any = distributed_c10d.PrefixStore(f"tamiyo/{subject}/{_LIVE[subject]}", store)
        _LIVE[subject] += 1
        self._ticket = uuid.uuid4().hex
        """Which session of this rank it is that takes part."""
        self._patience = timedelta(seconds=patience)
        self._roll_call = timedelta(seconds=roll_call)
        self._called: int | None = None
        self._missed = 0
        self._meeting = ""
        """Prefix of the present meeting's keys."""
        self._words = 0
        self._written: list[str] = []
        """Keys of the present meeting, which are deleted when the next one begins."""

    def present(self) -> None:
        """Tell the leader that this rank takes part."""
        self._store.set(f"rank/{self.rank}", self._ticket)

    def leave(self) -> None:
        """Take part no more."""
        _LIVE[self._subject] -= 1
        self.cancel()
        if self.rank:
            self._store.delete_key(f"rank/{self.rank}")

    @property
    def absent(self) -> Sequence[int]:
        """Ranks that do not take part; for the leader."""
        if self._store.check([f"rank/{rank}" for rank in self.followers]):
            return []
        return [rank for rank in self.followers if not self._has(f"rank/{rank}")]

    def complain(self, trouble: str) -> None:
        """Tell the leader that this rank can no longer be relied on."""
        self._store.set("trouble", f"{self.rank} {self._ticket} {trouble}")

    def complaint(self, step: int) -> str:
        """What a rank has complained of, empty if nothing; asks every `INTERVAL` steps."""
        if step % INTERVAL or not self._has("trouble"):
            return ""
        rank, ticket, trouble = self._store.get("trouble").decode().split(" ", 2)
        present = self._has(f"rank/{rank}") and self._store.get(f"rank/{rank}").decode() == ticket
        return f"rank {rank}: {trouble}" if present else ""  # else it was an earlier session's

    def call(self, step: int) -> None:
        """Call all ranks together for a step that none of them has reached yet."""
        tickets = [self._store.get(f"rank/{rank}") for rank in self.followers]
        self._called = (step // INTERVAL + 2) * INTERVAL
        self._store.set(f"call/{self._called}", b" ".join((self._ticket.encode(), *tickets)))

    def cancel(self) -> None:
        """Take a call back, so that nobody waits for the leader."""
        if self._called is not None:
            self._begin(self._called, self._ticket)
            self._called = None
            self._settle("open", _NO)

    @property
    def called(self) -> bool:
        """Whether a meeting is due."""
        return self._called is not None

    @property
    def given_up(self) -> bool:
        """Whether ranks failed to come too often."""
        return self._missed >= TRIES

    def gather(self, step: int) -> bool:
        """Whether all ranks are together now. The leader waits for them if it has called."""
        if step != self._called:
            return False
        self._begin(step, self._ticket)
        self._written.append(f"call/{step}")
        self._called = None
        try:
            expected = [self._key(f"here/{rank}") for rank in self.followers]
            self._store.wait(expected, self._roll_call)
            wish = _YES
        except RuntimeError:
            wish = _NO
        everyone = self._settle("open", wish)
        self._missed = 0 if everyone else self._missed + 1
        return everyone

    def attend(self, step: int) -> bool:
        """Whether the leader has called for this step and everyone has come. For followers."""
        if step % INTERVAL or not self._has(f"call/{step}"):
            return False
        leader, *tickets = self._store.get(f"call/{step}").decode().split()
        if self._ticket not in tickets:
            return False  # it was meant for an earlier session
        self._begin(step, leader)
        self._write(f"here/{self.rank}", _YES)
        return self._settled("open")

    def say(self, word: bytes) -> None:
        """Say the next word to all followers."""
        self._words += 1
        self._write(f"word/{self._words}", word)

    def hear(self) -> bytes | None:
        """The leader's next word; `None` if it has fallen silent."""
        self._words += 1
        return self._await(f"word/{self._words}")

    def vote(self, ballot: bytes) -> bool:
        """Vote on the last word, and wait for the outcome: whether it is carried."""
        self._write(f"vote/{self._words}/{self.rank}", ballot)
        return self._settled(f"verdict/{self._words}")

    def votes(self) -> Sequence[bytes | None]:
        """Every follower's vote on the last word; `None` for one that has fallen silent."""
        return [self._await(f"vote/{self._words}/{rank}") for rank in self.followers]

    def decide(self, carried: bool) -> bool:
        """Announce the outcome; false if a follower has given up waiting for it."""
        return self._settle(f"verdict/{self._words}", _YES if carried else _NO)

    def _begin(self, step: int, leader: str) -> None:
        for key in self._written:
            self._store.delete_key(key)
        self._written = []
        self._meeting, self._words = f"{leader}/{step}", 0

    def _key(self, name: str) -> str:
        return f"{self._meeting}/{name}"

    def _write(self, name: str, value: bytes) -> None:
        self._store.set(self._key(name), value)
        self._written.append(self._key(name))

    def _has(self, key: str) -> bool:
        return bool(self._store.check([key]))

    def _await(self, name: str) -> bytes | None:
        try:
            self._store.wait([self._key(name)], self._patience)
        except RuntimeError:
            # Gone for good, or late? Only what is in the store counts.
            if not self._has(self._key(name)):
                return None
        return bytes(self._store.get(self._key(name)))

    def _settle(self, name: str, wish: bytes) -> bool:
        """Write an outcome unless there is one; whether what stands there now is a yes."""
        key = self._key(name)
        self._written.append(key)
        return bytes(self._store.compare_set(key, "", wish.decode())) == _YES

    def _settled(self, name: str) -> bool:
        if (outcome := self._await(name)) is not None:
            return outcome == _YES
        return self._settle(name, _NO)


def store_of(group: Any) -> Any:
    """The store through which a process group was set up; `None` if it had none."""
    known = distributed_c10d._world.pg_map.get(group)
    return known[1] if known is not None else None
