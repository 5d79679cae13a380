"""Quotients and their logarithms, by which columns become free of scale."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["DECADES", "Floats", "decades", "quotient"]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

DECADES = 4.0
"""Powers of ten at which a quotient is cut off."""


def quotient(numerator: Floats, denominator: npt.NDArray[Any] | float) -> npt.NDArray[np.float64]:
    """Elementwise quotient; NaN where either is missing or the denominator is not positive.

    A quotient too large for a float64 is infinite.

    Args:
        numerator: Of any shape.
        denominator: Of one that broadcasts to it.
    """
    denominator = np.broadcast_to(np.asarray(denominator, np.float64), numerator.shape)
    result = np.full(numerator.shape, np.nan)
    with np.errstate(over="ignore"):
        np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def decades(
    numerator: Floats, denominator: Floats | float, *, compares: bool = False
) -> npt.NDArray[np.float64]:
    """Clipped and scaled log10 of a quotient of magnitudes, in [-1, 1].

    0 / x is the lower bound; 0 / 0 and signed quantities are missing.

    Args:
        numerator: Of any shape.
        denominator: Of one that broadcasts to it.
        compares: Whether like is compared with like, so that x / 0 is the upper bound; missing
            otherwise, as there is no reference then.
    """
    ratio = quotient(numerator, denominator)
    if compares:
        ratio = np.where((numerator > 0) & (np.asarray(denominator) == 0), np.inf, ratio)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(np.log10(ratio), -DECADES, DECADES) / DECADES
