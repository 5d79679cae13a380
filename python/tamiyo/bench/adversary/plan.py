"""Which runs are made: twins, harmless adaptations and attacks, in an order that mixes them."""

import math
from collections.abc import Sequence
from random import Random

from tamiyo.bench.adversary.catalogue import HARMFUL, HARMLESS, Adaptation
from tamiyo.bench.adversary.runs import Case
from tamiyo.bench.adversary.subjects import SUBJECTS, Subject

__all__ = ["attacks", "healthy", "mixed", "twins"]

FIRST_SEED = 5000
"""Seeds below were used to find the governor's bounds, and are not measured on."""
EARLIEST, LATEST = 40, 150
"""Steps between which a decision is sent."""


def twins(seeds: int = 12, subjects: Sequence[Subject] = SUBJECTS) -> list[Case]:
    """Untouched runs; the spread of their ends says what a significant difference is."""
    return [Case("twin", kind.name, FIRST_SEED + n) for n in range(seeds) for kind in subjects]


def healthy(seeds: int = 5, subjects: Sequence[Subject] = SUBJECTS) -> list[Case]:
    """Runs with an adaptation that does no harm."""
    return _governed(HARMLESS, seeds, subjects)


def attacks(seeds: int = 2, subjects: Sequence[Subject] = SUBJECTS) -> list[Case]:
    """Every harmful adaptation in every subject."""
    return _governed(HARMFUL, seeds, subjects)


def mixed(*cases: Sequence[Case]) -> list[Case]:
    """All of them in an order in which any beginning is a fair sample."""
    together = [case for some in cases for case in some]
    Random(0).shuffle(together)  # noqa: S311 - no secret
    return together


def _governed(
    adaptations: Sequence[Adaptation], seeds: int, subjects: Sequence[Subject]
) -> list[Case]:
    cases = []
    for kind in subjects:
        for seed in range(FIRST_SEED, FIRST_SEED + (math.ceil(seeds / 2) if kind.slow else seeds)):
            for entry in adaptations:
                draw = Random(f"{entry.name} {kind.name} {seed}")  # noqa: S311 - no secret
                at = draw.randint(EARLIEST, LATEST)
                cases.append(Case("governed", kind.name, seed, entry.name, at))
    return cases
