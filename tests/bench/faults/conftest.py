"""A small world for the tests of the fault benchmark, and rows made by hand."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from tamiyo.bench.faults import (
    ARCHITECTURES,
    DATA_SOURCES,
    FAULTS,
    POLICIES,
    Architecture,
    Cell,
    FaultAct,
    FaultRow,
)
from tamiyo.bench.faults.rows import Evaluation

torch.set_num_threads(1)

STEPS = 160
NO_ACT = FaultAct(
    step=30,
    adaptation="reinitialize",
    target=("hidden2",),
    parameters={"scope": "all"},
    by="rules",
    confidence=1.0,
    reason="seen",
    outcome="kept",
    answer="",
)
NO_ROW = FaultRow(
    fault="F0",
    architecture="small",
    data="circles",
    seed=0,
    policy="no-op",
    version="1",
    split="train",
    settings={"steps": 160, "steps_per_epoch": 16},
    onset=0,
    culprits=(),
    cures=(),
    evaluations=(Evaluation(80, 0.9, 0.3), Evaluation(160, 0.95, 0.2)),
    acts=(),
    accuracy=0.95,
    checksum="a",
    cpu_seconds=1.0,
)

needs_mnist1d = pytest.mark.skipif(find_spec("mnist1d") is None, reason="tamiyo[bench] is missing")


@pytest.fixture
def act():
    """Makes something that was done, by default a reinitialisation of hidden2 that was kept."""
    return lambda **changes: replace(NO_ACT, **changes)


@pytest.fixture
def row():
    """Makes a row, by default of a healthy run with nobody beside it."""
    return lambda **changes: replace(NO_ROW, **changes)


@pytest.fixture
def registers(monkeypatch):
    """Whatever a test adds to the registers is forgotten after it."""
    for registry in (ARCHITECTURES, DATA_SOURCES, FAULTS, POLICIES):
        monkeypatch.setattr(registry, "_items", dict(registry._items))


@pytest.fixture
def small(registers):
    """An architecture whose runs take a moment; it learns circles."""

    def build(network):
        first, second = network.widths
        return nn.Sequential(
            nn.Linear(*network.shape, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, network.classes),
        )

    return ARCHITECTURES.add(
        Architecture(
            "small",
            build,
            lambda source: source.name == "circles",
            (16, 16),
            learning_rate=0.01,
            steps=STEPS,
        )
    )


@pytest.fixture
def cell(small):
    """Makes a cell of the small architecture, by default without a fault."""
    return lambda fault="F0": Cell(fault, small.name, "circles")
