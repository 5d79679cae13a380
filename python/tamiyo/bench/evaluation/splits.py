"""Which runs a policy is trained, selected and tested on; no two splits share a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tamiyo.envs.training.data import HELD_OUT_DATA, TRAINING_DATA
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.sensing import VARIED

__all__ = ["GROUPS", "SEEDS", "SPLITS", "Split", "find_splits"]

SEEDS = 1_000_000
"""Environment seeds of each split."""
TRAINED_DEPTH, EVALUATED_DEPTH = 8, 11
"""Most hidden layers: evaluation goes deeper than training."""
SCHEDULED, UNSCALED = 0.4, 0.5
"""Shares of the runs whose learning rate follows a schedule, and that PyTorch initialises."""
ODD_RATES = 1.0
"""See `TrainingConfig`."""


@dataclass(frozen=True, slots=True)
class Split:
    """A distribution of runs, and the seeds that draw from it."""

    name: str
    config: TrainingConfig
    offset: int
    """First of its `SEEDS` environment seeds."""

    def seed(self, index: int) -> int:
        """The environment seed number `index` of this split.

        Raises:
            ValueError: an index outside 0 .. `SEEDS` - 1, whose seed would be another split's.
        """
        if not 0 <= index < SEEDS:
            raise ValueError(f"a split has the seeds 0 to {SEEDS - 1}, not {index}")
        return self.offset + index


def _split(place: int, name: str, depth: int, data: Sequence[str]) -> Split:
    config = TrainingConfig(
        max_hidden=depth,
        data=tuple(data),
        sensing=VARIED,
        scheduled=SCHEDULED,
        unscaled=UNSCALED,
        odd_rates=ODD_RATES,
    )
    return Split(name, config, place * SEEDS)


SPLITS: Mapping[str, Split] = {
    split.name: split
    for split in (
        _split(0, "train", TRAINED_DEPTH, TRAINING_DATA),
        _split(1, "validation", EVALUATED_DEPTH, TRAINING_DATA),
        *(
            _split(2 + place, f"test:{name}", EVALUATED_DEPTH, (name,))
            for place, name in enumerate(HELD_OUT_DATA)
        ),
        # Where trainings choose between what they have made.
        _split(100, "selection", EVALUATED_DEPTH, TRAINING_DATA),
    )
}
GROUPS: Mapping[str, Sequence[str]] = {
    "test": [name for name in SPLITS if name.startswith("test:")],
    "all": [name for name in SPLITS if name not in ("train", "selection")],
}
"""Names that stand for several splits."""


def find_splits(names: str) -> list[Split]:
    """Splits by their names or those of groups, separated by commas, each once.

    Raises:
        ValueError: an unknown name, or none.
    """
    found: dict[str, Split] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in GROUPS and name not in SPLITS:
            known = ", ".join((*SPLITS, *GROUPS))
            raise ValueError(f"unknown split {name!r}; there are {known}")
        found |= {one: SPLITS[one] for one in GROUPS.get(name, (name,))}
    if not found:
        raise ValueError("no split is named")
    return list(found.values())
