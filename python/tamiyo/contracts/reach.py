"""What follows from gradients that are exactly zero."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cut_off"]


def cut_off(gradient_norms: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether no gradient at all reaches the first layer, while others have one.

    The loss then does not depend on the inputs: a layer behind the first is dead as a whole, and
    nothing goes around it. A run like that learns nothing, and has nothing to lose.

    Args:
        gradient_norms: [N], in the order of the layers, NaN where it was not measured.
    """
    known = gradient_norms[~np.isnan(gradient_norms)]
    # Without any gradient there was nothing to learn from this batch, which says nothing.
    return bool(known.any() and known[0] == 0.0)
