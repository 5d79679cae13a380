"""What may be learned from, tuned on and reported: by pair of architecture and data, and by fault.

The tables are part of the benchmark. What they do not name, because a user has registered it, has
a split that follows from its name. A cell belongs to the later one of its pair's and its fault's,
so that nothing that was trained or tuned on shares a pair or a fault with what is reported.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Literal, TypeAlias, get_args

__all__ = ["SPLITS", "Split", "later", "split_of_fault", "split_of_pair"]

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: Sequence[Split] = get_args(Split)

_PAIRS: Mapping[Split, Sequence[str]] = {
    "train": (
        "mlp_64_64|blobs",
        "mlp_64_64|circles",
        "mlp_64_64|mnist1d",
        "mlp_10x5|blobs",
        "mlp_20|circles",
        "mlp_20|breast_cancer",
        "mlp_20|mnist1d",
        "cnn_1d|mnist1d",
    ),
    "validation": ("mlp_64_64|breast_cancer", "mlp_10x5|breast_cancer", "mlp_20|blobs"),
    "test": ("mlp_64_64|digits", "mlp_10x5|circles", "mlp_20|digits", "lenet|digits"),
}
_FAULTS: Mapping[Split, Sequence[str]] = {
    "train": (
        "F1:rate × 10",
        "F2:rate × 1e-3",
        "F3:sigmoid",
        "F4:std × 20",
        "F5:bias -10",
        "F7:absolute error",
        "F8:× 100",
        "F9:one layer 0",
        "F10:40 % noise",
        "F11:SGD at the rate of Adam",
        "F11:momentum .999",
        "F12:rate × 100",
        "F12:NaN batch",
        "F13:bottleneck",
    ),
    "validation": (
        "F1:rate × 100",
        "F4:std × 10",
        "F5:bias -3",
        "F9:all 0",
        "F11:Adam at the rate of SGD",
        "F12:gradient × 1000",
        "F12:half the units 0",
    ),
    "test": (
        "F1:rate 3",
        "F2:rate × 1e-4",
        "F3:tanh",
        "F4:std × 5",
        "F5:bias -1",
        "F7:regression",
        "F8:+ 50",
        "F9:all 0.1",
        "F10:95:5",
        "F11:batch of 1",
        "F12:shifted inputs",
        "F13:width / 4",
    ),
}
_HELD_OUT_KIND = "F6"
_HELD_OUT_ARCHITECTURE = "residual_mlp"
"""Never seen in training or validation, whatever the value or the data."""


def split_of_pair(architecture: str, data: str) -> Split:
    """Where runs of an architecture on a data set belong."""
    if architecture == _HELD_OUT_ARCHITECTURE:
        return "test"
    return _found(_PAIRS, f"{architecture}|{data}")


def split_of_fault(fault: str) -> Split:
    """Where runs with a fault belong."""
    if fault.split(":", 1)[0] == _HELD_OUT_KIND:
        return "test"
    return _found(_FAULTS, fault)


def later(one: Split, other: Split) -> Split:
    """The one of two splits that is kept away longer."""
    return max(one, other, key=SPLITS.index)


def _found(table: Mapping[Split, Sequence[str]], name: str) -> Split:
    for split, names in table.items():
        if name in names:
            return split
    # Half, a quarter and a quarter, on every machine and for good.
    return (SPLITS[0], *SPLITS)[sha256(name.encode()).digest()[0] % 4]
