"""What a learned policy may choose from in a live run: less than what the host can do.

A host announces what can be applied to a layer at all. Some of it would be refused as things are
now, and some the network has never had to choose from, so that what it says of it means nothing.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tamiyo.contracts import AdaptationType, Flag
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.inputs import GraphInputs

__all__ = ["narrowed"]

PRUNE = ACTIONS.index(AdaptationType.PRUNE)
REINITIALIZE = ACTIONS.index(AdaptationType.REINITIALIZE)


def narrowed(inputs: GraphInputs, state: ModelGraphState, offered: Tensor) -> GraphInputs:
    """The inputs, of which only what makes sense is legal; those that were given stay as they are.

    Args:
        inputs: The graph of the state.
        state: What was measured.
        offered: [types], bool: what was ever legal in training; nothing at all if that is not
            known, and then everything counts as offered.
    """
    # In NumPy, because each operation of torch costs more than all of these.
    legal, layers = inputs.legal.numpy(force=True).copy(), slice(inputs.nodes)
    # Only dead units are pruned.
    legal[layers, PRUNE] &= state.layers["dead_neuron_ratio_last"] > 0
    # Activity that is not finite does not tell which units are dormant.
    flags = state.layers["nonfinite_last"].astype(np.int64)
    legal[layers, REINITIALIZE] &= (flags & int(Flag.NONFINITE_ACTIVATION)) == 0
    known = offered.numpy(force=True)
    if known.any():
        legal &= known
    return replace(inputs, legal=torch.from_numpy(legal).to(inputs.legal.device))
