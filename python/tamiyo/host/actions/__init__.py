"""The table of adaptations that this host can apply, one file each."""

from collections.abc import Mapping, Sequence

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.add_seed import AddSeed
from tamiyo.host.actions.base import HOOKS, Action, Context, Refusal, Undo
from tamiyo.host.actions.change_activation import ChangeActivation
from tamiyo.host.actions.clip_gradients import ClipGradients
from tamiyo.host.actions.insert_normalization import InsertNormalization
from tamiyo.host.actions.prune import Prune
from tamiyo.host.actions.reinitialize import Reinitialize
from tamiyo.host.actions.remove_seed import RemoveSeed
from tamiyo.host.actions.restore import Restore
from tamiyo.host.actions.scale_learning_rate import ScaleLearningRate
from tamiyo.host.actions.widen import Widen
from tamiyo.host.layers import Layers

__all__ = [
    "ACTIONS",
    "HOOKS",
    "Action",
    "Context",
    "Refusal",
    "Undo",
    "available_actions",
    "model_actions",
]

ACTIONS: Mapping[AdaptationType, Action] = {
    action.type: action
    for action in (
        AddSeed(),
        RemoveSeed(),
        Widen(),
        Prune(),
        Reinitialize(),
        ChangeActivation(),
        InsertNormalization(),
        ScaleLearningRate(),
        ClipGradients(),
        Restore(),
    )
}


def available_actions(layers: Layers, layer_id: int) -> Sequence[AdaptationType]:
    """Adaptations that can be applied to one layer."""
    return [kind for kind, action in ACTIONS.items() if action.applies_to(layers, layer_id)]


def model_actions(layers: Layers) -> Sequence[AdaptationType]:
    """Adaptations that can be applied to the model as a whole."""
    if not any(layers.parameters(layer_id) for layer_id in range(len(layers))):
        return []
    return [kind for kind, action in ACTIONS.items() if action.whole_model]
