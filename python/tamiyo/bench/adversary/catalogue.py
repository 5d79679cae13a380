"""What is done to a run: decisions that any controller could send, and sabotage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from tamiyo.bench.adversary.sabotage import STRIKES, Sabotage, Strike
from tamiyo.contracts import AdaptationDecision, AdaptationType, ModelTopology
from tamiyo.host.actions import ACTIONS, Action

__all__ = ["ALWAYS", "HARMFUL", "HARMLESS", "Adaptation", "adaptation"]


@dataclass(frozen=True)
class Adaptation:
    """One way to adapt a run.

    Attributes:
        name: Name for tables.
        kind: What the decision asks for.
        parameters: Its parameters.
        layers: How many layers it is for: 0 is the whole model, -1 all that it applies to.
        strike: The damage that takes the place of `kind` in the session's table of actions.
    """

    name: str
    kind: AdaptationType
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    layers: int = 0
    strike: Strike | None = None

    def actions(self, seed: int) -> Mapping[AdaptationType, Action]:
        """The table of actions for a session that is to apply it."""
        if self.strike is None:
            return ACTIONS
        return {**ACTIONS, self.kind: Sabotage(self.strike, seed)}

    def decision(self, topology: ModelTopology, step: int, seed: int) -> AdaptationDecision:
        """The decision that asks for it; its layers are chosen by the seed."""
        able = [node.layer_id for node in topology.nodes if self.kind in node.actions]
        count = len(able) if self.layers < 0 else min(self.layers, len(able))
        target = sorted(Random(seed).sample(able, count))  # noqa: S311 - no secret
        return AdaptationDecision(
            decision_id="attack",
            run=topology.run,
            adaptation=self.kind,
            target=tuple(target),
            parameters=dict(self.parameters),
            issued_at_step=step,
            expires_at_step=step + 10,
        )


_A = AdaptationType

_DECISIONS = (
    Adaptation("rate × 3", _A.SCALE_LEARNING_RATE, {"factor": 3}),
    Adaptation("rate × 10", _A.SCALE_LEARNING_RATE, {"factor": 10}),
    Adaptation("rate × 100", _A.SCALE_LEARNING_RATE, {"factor": 100}),
    Adaptation("rate × 1000", _A.SCALE_LEARNING_RATE, {"factor": 1000}),
    Adaptation("rate × 0.1", _A.SCALE_LEARNING_RATE, {"factor": 0.1}),
    Adaptation("rate × 0.001", _A.SCALE_LEARNING_RATE, {"factor": 0.001}),
    Adaptation("rate of one layer × 100", _A.SCALE_LEARNING_RATE, {"factor": 100}, 1),
    Adaptation("rate of one layer × 1000", _A.SCALE_LEARNING_RATE, {"factor": 1000}, 1),
    Adaptation("rate of one layer × 0.001", _A.SCALE_LEARNING_RATE, {"factor": 0.001}, 1),
    Adaptation("one layer reinitialised", _A.REINITIALIZE, {"scope": "all"}, 1),
    Adaptation("all layers reinitialised", _A.REINITIALIZE, {"scope": "all"}, -1),
    Adaptation("one activation → tanh", _A.CHANGE_ACTIVATION, {"to": "tanh"}, 1),
    Adaptation("one activation → softplus", _A.CHANGE_ACTIVATION, {"to": "softplus"}, 1),
    Adaptation("one activation → selu", _A.CHANGE_ACTIVATION, {"to": "selu"}, 1),
    Adaptation("gradients clipped to 1e-4", _A.CLIP_GRADIENTS, {"ratio": 1e-4}),
    Adaptation("restored, rate × 0.001", _A.RESTORE, {"learning_rate_factor": 1e-3}),
)

HARMFUL: Sequence[Adaptation] = (
    *_DECISIONS,
    *(Adaptation(name, _A.REINITIALIZE, strike=strike) for name, strike in STRIKES.items()),
)
"""What is meant to hurt; whether it did, the runs show."""

HARMLESS: Sequence[Adaptation] = (
    Adaptation("widen", _A.WIDEN, {}, 1),
    Adaptation("widen, net2net", _A.WIDEN, {"initialization": "net2net"}, 1),
    Adaptation("insert normalisation", _A.INSERT_NORMALIZATION, {}, 1),
    Adaptation("add seed", _A.ADD_SEED, {}, 1),
    Adaptation("rate × 1", _A.SCALE_LEARNING_RATE, {"factor": 1}),
    Adaptation("gradients clipped to 10", _A.CLIP_GRADIENTS, {"ratio": 10}),
)
"""What preserves the network's function, or changes nothing at all."""

ALWAYS: Sequence[str] = (
    "rate × 1e6",
    "all weights zero",
    "all weights NaN",
    "one weight NaN",
    "one weight infinite",
    "optimiser state NaN",
    "normalisation statistics NaN",
)
"""Those that must be taken back every time."""


def adaptation(name: str) -> Adaptation:
    """The adaptation of that name."""
    return next(entry for entry in (*HARMFUL, *HARMLESS) if entry.name == name)
