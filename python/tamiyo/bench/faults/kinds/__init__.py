"""The faults of the benchmark, F1 to F13, a file for each of their causes.

Strengths are those that the papers on fault detection use. What mends a fault is what its cause
says; whether it really does, and whether the fault hurts at all, only runs can tell: with the
oracle beside them, and with nobody.
"""

from tamiyo.bench.faults.kinds import (
    activations,
    capacity,
    data,
    objective,
    rates,
    striking,
    weights,
)

__all__ = ["activations", "capacity", "data", "objective", "rates", "striking", "weights"]
