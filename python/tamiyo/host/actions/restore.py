"""The emergency exit: back to the last known good state, with a lower learning rate."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import Action, Context, Number, ParameterRule, Refusal, Undo
from tamiyo.host.actions.scale_learning_rate import scale_groups
from tamiyo.host.layers import Layers
from tamiyo.host.snapshot import RunSnapshot

__all__ = ["Restore", "usable"]


class Restore(Action):
    """Restores weights, buffers, optimiser and scheduler of the last known good snapshot.

    The order of data and torch's generators go on where they are.
    """

    type = AdaptationType.RESTORE
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "learning_rate_factor": Number(1e-3, 1, default=0.5)
    }
    whole_model = True

    def applies_to(self, layers: Layers, layer_id: int) -> bool:  # noqa: ARG002
        """A run is restored as a whole."""
        return False

    def apply(
        self,
        context: Context,
        target: Sequence[int],  # noqa: ARG002
        parameters: Mapping[str, float | str],
    ) -> Undo:
        """See `Action.apply`."""
        good = usable(context.good)
        before = context.before or RunSnapshot(context.run, good.step)
        good.restore(random_state=False)
        scale_groups(context.run, float(parameters["learning_rate_factor"]))
        return lambda: before.restore(random_state=False)


def usable(good: RunSnapshot | None) -> RunSnapshot:
    """The snapshot, if it can be restored.

    Raises:
        Refusal: there is none, or it is of another set of parameters than is trained now.
    """
    if good is None:
        raise Refusal("there is no known good snapshot yet")
    if not good.trained.unchanged():
        raise Refusal("the optimiser was given other parameters since the last good snapshot")
    return good
