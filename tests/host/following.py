"""Adaptations at chosen steps of an attached run."""

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions import ACTIONS

SLOW_SEED = {"units": 3.0, "training_steps": 20, "blending_steps": 30}


class Plan:
    """`{step: (kind, layers by name, parameters)}`, applied when the run has come that far.

    They are applied as the executor does it, but on no trial, whose verdict is another matter.
    """

    def __init__(self, decisions):
        self.decisions = decisions

    def follow(self, control, step):
        if control is None or step not in self.decisions:
            return
        kind, names, parameters = self.decisions[step]
        action = ACTIONS[AdaptationType(kind)]
        checked = {
            name: rule.check(name, parameters.get(name)) for name, rule in action.rules.items()
        }
        context = control._host._desk.executor.context
        target = [context.layers.ids[name] for name in names]
        assert all(action.applies_to(context.layers, layer_id) for layer_id in target)
        action.apply(context, target, checked)
