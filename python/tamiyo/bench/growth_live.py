"""A live training run that is grown by decisions, as a controller's would be applied."""

from collections.abc import Sequence

import torch
from torch import nn

from tamiyo.contracts import AdaptationDecision, AdaptationType, Outcome, Topic
from tamiyo.host import HostSession
from tamiyo.oona import connect

__all__ = ["INITIALIZATIONS", "GrowingRun"]

INITIALIZATIONS = (
    *("random", "zero_outgoing", "net2net"),
    *("gradmax", "gradmax_rectified", "correlated"),
)
"""Ways in which `widen` lets new units begin; the baseline is the first."""
_RUN = "growth"


class GrowingRun:
    """A session of the host on a bus of its own, which measures nothing and applies decisions.

    Args:
        model: What is trained.
        optimizer: Its optimiser.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._client = connect("memory://")
        self._session = HostSession(
            model, optimizer, self._client, run=_RUN, mode="autonomous", probe_budget=0.0
        )

    def step(self, loss: torch.Tensor) -> None:
        """An optimiser step is done; decisions are applied here."""
        self._session.step(loss=loss)

    def grow(self, names: Sequence[str], units: int, initialization: str, steps: int) -> None:
        """Decide that layers are widened after the present step.

        Args:
            names: Module paths of the layers.
            units: How many each of them is given.
            initialization: One of `INITIALIZATIONS`.
            steps: Steps during which gradients are recorded, where they are.
        """
        topology = self._session.topology
        nodes = topology.nodes if topology is not None else ()
        decision = AdaptationDecision(
            decision_id="grow",
            run=_RUN,
            adaptation=AdaptationType.WIDEN,
            target=tuple(node.layer_id for node in nodes if node.name in names),
            parameters={
                "units": float(units),
                "initialization": initialization,
                "gradient_steps": float(steps),
            },
            expires_at_step=10**9,
        )
        self._client.publish_nowait(Topic.DECISIONS, decision.to_bytes())

    def end(self) -> Outcome | None:
        """End the session.

        Returns:
            What became of the growth; `None` if none was decided.

        Raises:
            RuntimeError: it was refused or has failed.
        """
        self._session.remove()
        for _, result in self._session.history:
            if result.outcome not in (Outcome.KEPT, Outcome.ROLLED_BACK):
                raise RuntimeError(f"the growth was {result.outcome}: {result.reason}")
            return result.outcome
        return None
