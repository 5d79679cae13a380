"""What a live decision carries besides its target: the doses for the layers of one state."""

from collections.abc import Mapping, Sequence

import numpy as np

from tamiyo.contracts import AdaptationType, ModelTopology, TopologyNode
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import LAYER_TYPES, layer_type_index
from tamiyo.policy import dosage

__all__ = ["prescribe"]

_TYPE_NAMES = tuple(LAYER_TYPES)
_FIXED: Mapping[AdaptationType, Mapping[str, float | str]] = {
    # The host looks at the weights and units themselves: a measured norm counts biases, too.
    AdaptationType.REINITIALIZE: {
        "scope": "as_needed",
        "threshold": dosage.DORMANT,
        "too_large": dosage.TOO_LARGE,
    },
    AdaptationType.PRUNE: {"units": dosage.PRUNE_SHARE},
    AdaptationType.CLIP_GRADIENTS: {"ratio": dosage.CLIP_RATIO},
    AdaptationType.RESTORE: {"learning_rate_factor": dosage.RESTORE_RATE},
}
_UNIT_AXIS = {"linear": -1, "recurrent": -1, "conv": 0, "conv_transpose": 0}
"""Axis of an output without its batch dimension along which a layer's units lie."""


def prescribe(
    adaptation: AdaptationType, target: Sequence[int], state: ModelGraphState
) -> dict[str, float | str]:
    """Parameters of an adaptation, for layers as they were measured.

    Of several layers at once the learning rate follows the median one, and the number of units the
    layer that needs the fewest. Seeds and normalisations have none: they begin without effect.

    Args:
        adaptation: What is to be done.
        target: Ids of the layers; empty means the whole model.
        state: What was measured; it has a topology.

    Raises:
        ValueError: there is no topology.
    """
    if state.topology is None:
        raise ValueError("a dose needs a topology: nothing else says how wide the layers are")
    if adaptation is AdaptationType.SCALE_LEARNING_RATE:
        return {"factor": _rate_factor(target, state)}
    if adaptation is AdaptationType.WIDEN:
        return _widening(target, state.topology)
    if adaptation is AdaptationType.CHANGE_ACTIVATION:
        present = {_activation(state.topology.nodes[layer]) for layer in target}
        return {"to": dosage.new_activation(present.pop() if len(present) == 1 else None)}
    return dict(_FIXED.get(adaptation, {}))


def _rate_factor(target: Sequence[int], state: ModelGraphState) -> float:
    ratios = state.layers["update_ratio_last"]
    if not target:
        return dosage.run_rate_factor(ratios)
    chosen = ratios[list(target)]
    known = chosen[~np.isnan(chosen)]
    own = float(np.median(known)) if len(known) else float("nan")
    return dosage.layer_rate_factor(own, ratios)


def _widening(target: Sequence[int], topology: ModelTopology) -> dict[str, float | str]:
    """A number of units; nothing, so that the host adds its usual share, where no width is known.

    Widths are compared among hidden layers of one kind: channels are no units of a linear layer.
    """
    feeding = {edge.source for edge in topology.edges}
    doses = []
    for layer in target:
        node = topology.nodes[layer]
        if not (width := _units(node)):
            continue
        alike = [
            _units(other)
            for other in topology.nodes
            if _kind(other) == _kind(node) and (other.layer_id in feeding or other is node)
        ]
        doses.append(dosage.units_to_add(width, [units for units in alike if units]))
    return {"units": min(doses)} if doses else {}


def _kind(node: TopologyNode) -> str:
    return _TYPE_NAMES[layer_type_index(node.type)]


def _units(node: TopologyNode) -> int:
    """Units of a layer; 0 where they are not known."""
    axis = _UNIT_AXIS.get(_kind(node))
    return 0 if axis is None or not node.shape else node.shape[axis]


def _activation(node: TopologyNode) -> str:
    """Name of the activation that follows a layer, or that it is."""
    return node.activation or _kind(node)
