"""Cells: a fault in an architecture on a data set, and the split that each belongs to."""

from collections.abc import Iterator
from dataclasses import dataclass

from tamiyo.bench.faults.architectures import ARCHITECTURES
from tamiyo.bench.faults.data import DATA_SOURCES
from tamiyo.bench.faults.fault import FAULTS, HEALTHY, Fault
from tamiyo.bench.faults.recipe import Recipe, healthy_recipe
from tamiyo.bench.faults.splits import Split, later, split_of_fault, split_of_pair

__all__ = ["Cell", "all_cells", "healthy_cells", "split_of"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault, or none, in one architecture on one data set.

    Raises:
        ValueError: there is no such thing, or the architecture cannot take the data or have the
            fault.
    """

    fault: str
    architecture: str
    data: str

    def __post_init__(self) -> None:
        architecture = ARCHITECTURES.find(self.architecture)
        source = DATA_SOURCES.find(self.data)
        if not architecture.takes(source):
            raise ValueError(f"{self.architecture} cannot take {self.data}")
        if self.kind_of_fault is not None and not self.kind_of_fault.applies(architecture, source):
            raise ValueError(f"{self.architecture} on {self.data} cannot have {self.fault}")

    @property
    def key(self) -> str:
        """Identifies it."""
        return f"{self.fault}|{self.architecture}|{self.data}"

    @property
    def healthy(self) -> "Cell":
        """The same without its fault."""
        return Cell(HEALTHY, self.architecture, self.data)

    @property
    def kind_of_fault(self) -> Fault | None:
        """What is wrong; `None` if nothing is."""
        return None if self.fault == HEALTHY else FAULTS.find(self.fault)

    def recipe(self) -> Recipe:
        """How its runs are built and trained.

        Raises:
            MissingExtraError: the package of its data is not installed.
        """
        recipe = healthy_recipe(ARCHITECTURES.find(self.architecture), self.data)
        return recipe if self.kind_of_fault is None else self.kind_of_fault.spoil(recipe)


def all_cells() -> Iterator[Cell]:
    """Every cell with a fault, whether it hurts or not."""
    for pair in healthy_cells():
        architecture, source = ARCHITECTURES[pair.architecture], DATA_SOURCES[pair.data]
        for fault in FAULTS.values():
            if fault.applies(architecture, source):
                yield Cell(fault.name, pair.architecture, pair.data)


def healthy_cells() -> Iterator[Cell]:
    """Every architecture on all data that it can take."""
    for architecture in ARCHITECTURES.values():
        for source in DATA_SOURCES.values():
            if architecture.takes(source):
                yield Cell(HEALTHY, architecture.name, source.name)


def split_of(cell: Cell) -> Split:
    """The later one of the splits of its pair and of its fault."""
    pair = split_of_pair(cell.architecture, cell.data)
    return pair if cell.fault == HEALTHY else later(pair, split_of_fault(cell.fault))
