"""Random hosts and faults: what an episode is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from tamiyo.envs.training.data import TRAINING_DATA
from tamiyo.envs.training.faults import CURABLE, Fault, FaultKind, draw_fault, places, possible
from tamiyo.envs.training.hosts import Activation, HostSpec, Optimizer, Wiring
from tamiyo.learn.rewards import RewardConfig

__all__ = ["Scenario", "TrainingConfig", "draw_scenarios"]

_CHOICES: Sequence[Activation] = (*("relu",) * 3, "leaky_relu", "elu", *("tanh",) * 2, "sigmoid")
"""Activations by how often they are drawn."""
_USUAL_RATES: Mapping[Optimizer, float] = {"sgd": 0.02, "adam": 2e-3}
"""Middles of the healthy learning rates."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What episodes are made of.

    Raises:
        ValueError: numbers that make no episode.
    """

    decisions: int = 20
    """Decisions in an episode."""
    interval: int = 10
    """Optimiser steps between two decisions."""
    min_hidden: int = 1
    max_hidden: int = 11
    """Hidden layers; there is one linear layer more."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Widths that cohorts are padded to; their hosts are between a quarter as wide and as wide."""
    data: tuple[str, ...] = tuple(TRAINING_DATA)
    """Names of data sets."""
    faults: tuple[FaultKind, ...] = CURABLE
    """Kinds of faults; by default those whose cure was measured to pay."""
    faulty: float = 0.5
    """Share of the runs that have one."""
    held_out: int = 128
    """Held-out samples that quality is measured on."""
    max_adaptations: int = 6
    """Adaptations of a run after which none is legal."""
    adaptation_cost: float = 0.002
    """What one costs, in quality, so that of two courses that end equally well the one with fewer
    interventions is better."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    """The objective; its episodes always have as many intervals as there are decisions."""

    def __post_init__(self) -> None:
        if self.decisions < 1 or self.interval < 1 or not 0 <= self.faulty <= 1:
            raise ValueError("an episode needs decisions, steps between them and a share of faults")
        if not 1 <= self.min_hidden <= self.max_hidden:
            raise ValueError("hidden layers must be between 1 and their maximum")

    @property
    def steps(self) -> int:
        """Optimiser steps of a run; the first interval comes before the first decision."""
        return self.interval * (self.decisions + 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A host and what befalls it."""

    spec: HostSpec
    fault: Fault


def draw_scenarios(
    random: np.random.Generator, config: TrainingConfig, count: int
) -> tuple[Sequence[Scenario], int]:
    """Runs for one cohort, deepest first, and the width to pad them to.

    Width, optimiser and activation are drawn for the cohort: programs that differ in them would do
    all of their work for every host.
    """
    width = int(random.choice(config.widths))
    optimizer: Optimizer = get_args(Optimizer)[random.integers(2)]
    choices = [one for one in _CHOICES if _possible(config, one) or not config.faulty]
    activation = choices[random.integers(len(choices))]
    kinds = _possible(config, activation)
    scenarios = [
        _draw(random, config, HostSpec("", (width,), "plain", activation, optimizer), kinds)
        for _ in range(count)
    ]
    return sorted(scenarios, key=lambda one: -one.spec.hidden), width


def _possible(config: TrainingConfig, activation: Activation) -> Sequence[FaultKind]:
    return [kind for kind in config.faults if possible(kind, activation)]


def _draw(
    random: np.random.Generator,
    config: TrainingConfig,
    common: HostSpec,
    kinds: Sequence[FaultKind],
) -> Scenario:
    spec = _draw_host(random, config, common)
    kind = FaultKind.HEALTHY
    if kinds and random.random() < config.faulty:
        kind = kinds[int(random.integers(len(kinds)))]
    # Not every host can have every fault: draw hosts until one can.
    while not places(kind, spec):
        spec = _draw_host(random, config, common)
    earliest = 5 * config.interval if kind is FaultKind.NOT_A_NUMBER else 0
    latest = max(earliest, config.steps // 2)
    fault = draw_fault(random, kind, spec, (earliest, latest))
    if kind is FaultKind.BOTTLENECK:
        widths = list(spec.widths)
        widths[fault.layer] = 1
        spec = replace(spec, widths=tuple(widths))
    return Scenario(spec, fault)


def _draw_host(random: np.random.Generator, config: TrainingConfig, common: HostSpec) -> HostSpec:
    deepest, width = config.max_hidden, common.widths[0]
    if common.activation == "sigmoid":
        # Deeper sigmoid networks do not train at all, healthy or not.
        deepest = max(config.min_hidden, min(deepest, 2))
    hidden = int(random.integers(config.min_hidden, deepest, endpoint=True))
    wiring: Wiring = get_args(Wiring)[random.integers(3)] if hidden > 1 else "plain"
    units = int(random.integers(width // 4, width, endpoint=True))
    widths = [units] * hidden
    if wiring == "plain" and random.random() < 0.5:
        # Narrowing towards the classes.
        shares = 1.0 - 0.5 * np.arange(hidden) / hidden
        widths = [max(width // 4, round(units * share)) for share in shares.tolist()]
    # The slope of a sigmoid is at most a quarter.
    usual = _USUAL_RATES[common.optimizer] * (4.0 if common.activation == "sigmoid" else 1.0)
    return replace(
        common,
        data=config.data[random.integers(len(config.data))],
        widths=tuple(widths),
        wiring=wiring,
        learning_rate=usual * float(np.exp(random.uniform(-0.7, 0.7))),
        momentum=float(random.choice([0.8, 0.9])),
        seed=int(random.integers(2**31)),
    )
