"""Random hosts and faults: what an episode is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from tamiyo.envs.training.data import TRAINING_DATA
from tamiyo.envs.training.faults import CURABLE, Fault, FaultKind, draw_fault, places
from tamiyo.envs.training.hosts import (
    Activation,
    HostSpec,
    Initialization,
    Optimizer,
    Schedule,
    Wiring,
)
from tamiyo.envs.training.sensing import Sensing, SensingConfig
from tamiyo.learn.rewards import RewardConfig

__all__ = ["CohortPlan", "Scenario", "TrainingConfig", "draw_cohort"]

_CHOICES: Sequence[Activation] = (*("relu",) * 3, "leaky_relu", "elu", *("tanh",) * 2, "sigmoid")
"""Activations by how often they are drawn."""
_USUAL_RATES: Mapping[Optimizer, float] = {"sgd": 0.02, "adam": 2e-3}
"""Middles of the healthy learning rates."""
DEEPEST_UNSCALED = 4
"""Hidden layers up to which nothing vanishes on its way through weights of PyTorch's size."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What episodes are made of.

    Raises:
        ValueError: numbers that make no episode.
    """

    decisions: int = 20
    """Decisions in an episode."""
    interval: int = 10
    """Optimiser steps between two decisions, at the usual pace."""
    sensing: SensingConfig = field(default_factory=SensingConfig)
    """How differently runs are watched."""
    scheduled: float = 0.0
    """Share of the runs whose learning rate follows a schedule."""
    unscaled: float = 0.0
    """Share of the runs, of those that can train so, that begin as PyTorch's layers do."""
    odd_rates: float = 0.0
    """Factor e to the power of this, up or down, by which learning rates without a fault may be off
    the usual ones; networks do not only train with the best."""
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
    def most_steps(self) -> int:
        """Optimiser steps of the longest run."""
        sensing = self.sensing
        intervals = max(sensing.leads) + self.decisions + 1
        return self.interval * max(sensing.paces) * intervals


@dataclass(frozen=True, slots=True)
class Scenario:
    """A host and what befalls it."""

    spec: HostSpec
    fault: Fault


@dataclass(frozen=True, eq=False, slots=True)
class CohortPlan:
    """Runs that train in one program."""

    scenarios: Sequence[Scenario]
    """Deepest first."""
    width: int
    """Width to pad to."""
    sensing: Sensing


def draw_cohort(random: np.random.Generator, config: TrainingConfig, count: int) -> CohortPlan:
    """Runs for one cohort, and how they are watched.

    Width, optimiser and activation are drawn for the cohort: programs that differ in them would do
    all of their work for every host.

    Raises:
        ValueError: no host of the configuration can have any of its faults, or train.
    """
    # Ways of watching have lots of their own: more of them must not change the runs.
    lots = random.spawn(1)[0]
    sensing = Sensing.draw(lots, config.sensing, config.interval, count)
    width = int(random.choice(config.widths))
    optimizer: Optimizer = get_args(Optimizer)[random.integers(2)]
    kinds = {one: _possible(config, one, width) for one in get_args(Activation)}
    choices = [one for one in _CHOICES if kinds[one] or not config.faulty]
    choices = [one for one in choices if _deepest(config, one) >= config.min_hidden]
    if not choices:
        raise ValueError(f"no host of {config} can train and have any of its faults")
    activation = choices[random.integers(len(choices))]
    common = HostSpec("", (width,), "plain", activation, optimizer)
    scenarios = [_draw(random, config, common, kinds[activation], sensing) for _ in range(count)]
    return CohortPlan(sorted(scenarios, key=lambda one: -one.spec.hidden), width, sensing)


def _possible(config: TrainingConfig, activation: Activation, width: int) -> Sequence[FaultKind]:
    """Faults that some host with this activation can have."""
    widest = (width,) * _deepest(config, activation)
    hosts = [
        HostSpec(data, widest, wiring, activation)
        for data in config.data
        for wiring in get_args(Wiring)
    ]
    return [kind for kind in config.faults if any(places(kind, host) for host in hosts)]


def _deepest(config: TrainingConfig, activation: Activation) -> int:
    """Most hidden layers. Deeper sigmoid networks do not train at all, healthy or not."""
    return min(config.max_hidden, 2) if activation == "sigmoid" else config.max_hidden


def _draw(
    random: np.random.Generator,
    config: TrainingConfig,
    common: HostSpec,
    kinds: Sequence[FaultKind],
    sensing: Sensing,
) -> Scenario:
    spec = _draw_host(random, config, common)
    kind = FaultKind.HEALTHY
    if kinds and random.random() < config.faulty:
        kind = kinds[int(random.integers(len(kinds)))]
    # Not every host can have every fault: draw hosts until one can.
    while not places(kind, spec):
        spec = _draw_host(random, config, common)
    # Without a snapshot nothing brings numbers back.
    earliest = sensing.steps(4) if kind is FaultKind.NOT_A_NUMBER else 0
    half = (sensing.steps(config.decisions) - sensing.lead) // 2
    latest = max(earliest, sensing.lead + half)
    if kind not in (FaultKind.RATE_HIGH, FaultKind.RATE_LOW):
        # What is ten times too high is measured from where rates usually are.
        spread = config.odd_rates * random.uniform(-1.0, 1.0)
        spec = replace(spec, learning_rate=spec.learning_rate * float(np.exp(spread)))
    fault = draw_fault(random, kind, spec, (earliest, latest))
    if kind is FaultKind.BOTTLENECK:
        widths = list(spec.widths)
        widths[fault.layer] = 1
        spec = replace(spec, widths=tuple(widths))
    return Scenario(spec, fault)


def _draw_host(random: np.random.Generator, config: TrainingConfig, common: HostSpec) -> HostSpec:
    width, deepest = common.widths[0], _deepest(config, common.activation)
    hidden = int(random.integers(config.min_hidden, deepest, endpoint=True))
    wiring: Wiring = get_args(Wiring)[random.integers(3)] if hidden > 1 else "plain"
    units = int(random.integers(width // 4, width, endpoint=True))
    widths = [units] * hidden
    shape = random.random() if wiring == "plain" else 1.0
    if shape < 0.3:
        widths = random.integers(width // 4, width, hidden, endpoint=True).tolist()
    elif shape < 0.6:
        # Narrowing towards the classes.
        shares = 1.0 - 0.5 * np.arange(hidden) / hidden
        widths = [max(width // 4, round(units * share)) for share in shares.tolist()]
    schedule: Schedule = "constant"
    if random.random() < config.scheduled:
        schedule = get_args(Schedule)[random.integers(1, 3)]
    shallow = hidden <= DEEPEST_UNSCALED or wiring == "residual"
    initialization: Initialization = "scaled"
    if shallow and random.random() < config.unscaled:
        initialization = "default"
    # The slope of a sigmoid is at most a quarter.
    usual = _USUAL_RATES[common.optimizer] * (4.0 if common.activation == "sigmoid" else 1.0)
    return replace(
        common,
        data=config.data[random.integers(len(config.data))],
        widths=tuple(widths),
        wiring=wiring,
        learning_rate=usual * float(np.exp(random.uniform(-0.7, 0.7))),
        momentum=float(random.choice([0.8, 0.9])),
        schedule=schedule,
        initialization=initialization,
        seed=int(random.integers(2**31)),
    )
