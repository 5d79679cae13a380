"""Ready-made plans: `smoke` for every change of the code, `standard` for figures, `full` for all.

The cells were chosen because their faults hurt and, where a cure is named, because an oracle can
mend them: by runs with nobody and with the oracle beside them alone, see `docs/faults.md`.
"""

from collections.abc import Callable, Mapping, Sequence

from tamiyo.bench.faults.cells import Cell, all_cells, healthy_cells, split_of
from tamiyo.bench.faults.experiment import Plan

__all__ = ["PRESETS"]

_SMOKE: Mapping[str, Sequence[str]] = {
    "mlp_64_64|digits": (
        "F1:rate × 10",
        "F2:rate × 1e-3",
        "F5:bias -10",
        "F9:one layer 0",
        "F12:NaN batch",
        "F13:bottleneck",
    ),
    "mlp_10x5|circles": ("F3:sigmoid",),
    "lenet|digits": ("F4:std × 5", "F6:relu"),
}
_STANDARD: Mapping[str, Sequence[str]] = {
    "mlp_64_64|digits": (
        "F1:rate × 10",
        "F1:rate 3",
        "F2:rate × 1e-3",
        "F4:std × 20",
        "F5:bias -10",
        "F7:regression",
        "F8:× 100",
        "F9:one layer 0",
        "F10:40 % noise",
        "F11:momentum .999",
        "F12:rate × 100",
        "F13:bottleneck",
    ),
    "mlp_10x5|circles": ("F3:sigmoid", "F5:bias -3", "F9:all 0.1"),
    "mlp_20|digits": ("F3:sigmoid", "F6:sigmoid", "F12:NaN batch"),
    "lenet|digits": ("F2:rate × 1e-4", "F6:relu", "F12:gradient × 1000", "F13:width / 4"),
    "residual_mlp|digits": ("F4:std × 10", "F6:relu", "F10:95:5"),
}


def _cells(table: Mapping[str, Sequence[str]]) -> list[Cell]:
    return [Cell(fault, *pair.split("|")) for pair, faults in table.items() for fault in faults]


def _smoke() -> Plan:
    """Minutes on two cores."""
    cells = _cells(_SMOKE)
    return Plan(cells, 3, list(dict.fromkeys(cell.healthy for cell in cells)), 10)


def _standard() -> Plan:
    """Every kind of fault in test cells, and more than two hundred healthy runs."""
    return Plan(_cells(_STANDARD), 10, [c for c in healthy_cells() if split_of(c) == "test"], 25)


def _full() -> Plan:
    """Everything there is."""
    return Plan(list(all_cells()), 10, list(healthy_cells()), 20)


PRESETS: Mapping[str, Callable[[], Plan]] = {
    "smoke": _smoke,
    "standard": _standard,
    "full": _full,
}
