"""The cohorts by name, and who plays them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tamiyo.bench.evaluation.network_player import NetworkPlayer
from tamiyo.bench.evaluation.players import (
    GrowingPlayer,
    IdlePlayer,
    OraclePlayer,
    Player,
    RandomPlayer,
)
from tamiyo.bench.evaluation.state_player import StatePlayer
from tamiyo.bench.evaluation.tuned_rules import TunedRules
from tamiyo.policy import EnhancedTamiyoPolicyGNN, FallbackPolicy, RulesPolicy

__all__ = ["COHORTS", "DEFAULT", "LEARNED", "NO_OP", "Lineup", "named_folders"]

NO_OP, RULES, TUNED = "no-op", "rules", "tuned"
LEARNED, DEFAULT = "learned", "default"
_SIMPLE: Mapping[str, Callable[[], Player]] = {
    NO_OP: IdlePlayer,
    "random": RandomPlayer,
    "growth": GrowingPlayer,
    RULES: lambda: StatePlayer(RULES, RulesPolicy),
    TUNED: lambda: StatePlayer(TUNED, TunedRules),
    "oracle": OraclePlayer,
}
COHORTS: Sequence[str] = (
    NO_OP,
    "random",
    "growth",
    RULES,
    TUNED,
    LEARNED,
    DEFAULT,
    "oracle",
)
"""All names, in the order in which they are shown; other networks come before `learned`."""


def named_folders(options: Sequence[str]) -> dict[str, Path]:
    """Folders of checkpoints by name, from `NAME=FOLDER` as people write it.

    Raises:
        ValueError: one without a name or a folder, or two of one name.
    """
    found: dict[str, Path] = {}
    for one in options:
        name, _, folder = one.partition("=")
        if not name or not folder or name in found:
            raise ValueError(f"--also needs a name of its own and a folder, not {one!r}")
        found[name] = Path(folder)
    return found


@dataclass(frozen=True, slots=True)
class Lineup:
    """Which cohorts are compared.

    Args:
        names: Members of `COHORTS` or of `others`; `no-op`, which all are compared with, is always
            in.
        learned: Checkpoint of `learned`, the network alone, and of `default`, the network with the
            rules behind it and everything else that stands between it and a live run.
        others: Checkpoints of other networks by the names of their cohorts: the clone that a policy
            was refined from, other seeds, trainings that lacked something.

    Raises:
        ValueError: an unknown name, one whose checkpoint is not given, or another network with a
            name that is taken or is not made of letters, digits, `-` and `_`.
    """

    names: tuple[str, ...]
    learned: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.others:
            if name in COHORTS or not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"another network cannot be called {name!r}")
        place = COHORTS.index(LEARNED)
        known = (*COHORTS[:place], *self.others, *COHORTS[place:])
        for name in self.names:
            if name not in known:
                raise ValueError(f"unknown cohort {name!r}; there are {', '.join(known)}")
            if name in (LEARNED, DEFAULT) and self.learned is None:
                raise ValueError(f"the cohort {name!r} needs a checkpoint")
        wanted = {NO_OP, *self.names}
        object.__setattr__(self, "names", tuple(name for name in known if name in wanted))

    def players(self) -> list[Player]:
        """A player for each cohort, in order.

        Raises:
            CheckpointError: a checkpoint that cannot be read.
        """
        return [self._player(name) for name in self.names]

    def versions(self) -> dict[str, str]:
        """What identifies the weights of the cohorts that have any.

        Raises:
            CheckpointError: a checkpoint that cannot be read.
        """
        players = self.players()
        return {one.name: one.network.version for one in players if isinstance(one, NetworkPlayer)}

    def _player(self, name: str) -> Player:
        if name in _SIMPLE:
            return _SIMPLE[name]()
        path = self._checkpoint(name)
        if name == DEFAULT:
            network = EnhancedTamiyoPolicyGNN.from_pretrained(path)
            return StatePlayer(name, partial(FallbackPolicy, network))
        return NetworkPlayer.load(name, path)

    def _checkpoint(self, name: str) -> Path:
        if name in (LEARNED, DEFAULT) and self.learned is not None:
            return self.learned
        return self.others[name]
