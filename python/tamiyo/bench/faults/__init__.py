"""The fault benchmark: whole systems compared on real training runs, faulty and healthy ones.

Architectures, data sets, faults and policies are in registers. A file of the user's adds to them by
`ARCHITECTURES.add(...)` and so on, see `docs/faults.md`.
"""

from tamiyo.bench.faults import companions, kinds
from tamiyo.bench.faults.architectures import ACTIVATIONS, ARCHITECTURES, Architecture, Network
from tamiyo.bench.faults.cells import Cell, all_cells, healthy_cells, split_of
from tamiyo.bench.faults.companion import POLICIES, Companion, Oracle, Policy, Subject
from tamiyo.bench.faults.data import DATA_SOURCES, Dataset, DataSource
from tamiyo.bench.faults.experiment import Plan, experiment
from tamiyo.bench.faults.fault import FAULTS, Cure, Fault, Place, Told, hidden_layers, middle_layer
from tamiyo.bench.faults.live import play
from tamiyo.bench.faults.recipe import OPTIMIZERS, Recipe, Strike
from tamiyo.bench.faults.registry import load_plugin
from tamiyo.bench.faults.rows import FaultAct, FaultRow, read_rows

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "DATA_SOURCES",
    "FAULTS",
    "OPTIMIZERS",
    "POLICIES",
    "Architecture",
    "Cell",
    "Companion",
    "Cure",
    "DataSource",
    "Dataset",
    "Fault",
    "FaultAct",
    "FaultRow",
    "Network",
    "Oracle",
    "Place",
    "Plan",
    "Policy",
    "Recipe",
    "Strike",
    "Subject",
    "Told",
    "all_cells",
    "companions",
    "experiment",
    "healthy_cells",
    "hidden_layers",
    "kinds",
    "load_plugin",
    "middle_layer",
    "play",
    "read_rows",
    "split_of",
]
