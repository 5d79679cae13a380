"""The cohorts by name, and who plays them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

__all__ = ["CLONE", "COHORTS", "DEFAULT", "LEARNED", "NO_OP", "Lineup"]

NO_OP, RULES, TUNED = "no-op", "rules", "tuned"
CLONE, LEARNED, DEFAULT = "clone", "learned", "default"
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
    CLONE,
    LEARNED,
    DEFAULT,
    "oracle",
)
"""All names, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Lineup:
    """Which cohorts are compared.

    Args:
        names: Members of `COHORTS`; `no-op`, which the others are compared with, is always in.
        learned: Checkpoint of `learned`, the network alone, and of `default`, the network with the
            rules behind it and everything else that stands between it and a live run.
        clone: Checkpoint of `clone`, the policy before reinforcement learning.

    Raises:
        ValueError: an unknown name, or one whose checkpoint is not given.
    """

    names: tuple[str, ...]
    learned: Path | None = None
    clone: Path | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in COHORTS:
                raise ValueError(f"unknown cohort {name!r}; there are {', '.join(COHORTS)}")
        for name, path in self._checkpoints.items():
            if name in self.names and path is None:
                raise ValueError(f"the cohort {name!r} needs a checkpoint")
        wanted = {NO_OP, *self.names}
        object.__setattr__(self, "names", tuple(name for name in COHORTS if name in wanted))

    @property
    def _checkpoints(self) -> Mapping[str, Path | None]:
        return {LEARNED: self.learned, DEFAULT: self.learned, CLONE: self.clone}

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
        path = self._checkpoints.get(name)
        if path is None:
            return _SIMPLE[name]()
        if name == DEFAULT:
            network = EnhancedTamiyoPolicyGNN.from_pretrained(path)
            return StatePlayer(name, partial(FallbackPolicy, network))
        return NetworkPlayer.load(name, path)
