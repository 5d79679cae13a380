"""Settings of a policy: the network's shape, and the thresholds a decision has to pass."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tamiyo.graph.schema import EDGE_DIM, NODE_DIM

__all__ = ["PolicyConfig"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class PolicyConfig(BaseModel):
    """Immutable and validated.

    Raises:
        pydantic.ValidationError: a value out of range, an unknown name, heads that do not divide
            the hidden width, or a cooldown shorter than a decision lives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_feature_dim: int = Field(default=NODE_DIM, ge=NODE_DIM, le=NODE_DIM)
    edge_feature_dim: int = Field(default=EDGE_DIM, ge=EDGE_DIM, le=EDGE_DIM)
    hidden_dim: Count = 128
    num_gnn_layers: int = Field(default=4, ge=0)
    """Without any, layers are judged by themselves and by what all have in common."""
    num_attention_heads: Count = 4
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the uncertainty path; nothing else in the network drops anything."""
    enable_uncertainty: bool = True
    uncertainty_samples: int = Field(default=10, ge=2)
    uncertainty_seed: int = Field(default=0, ge=0)
    """Seed of the dropout masks, so that a decision can be replayed."""
    epistemic_weight: Share = 0.1
    """How much of the uncertainty is taken off the confidence."""
    health_threshold: Share = 0.3
    adaptation_confidence_threshold: Share = 0.75
    uncertainty_threshold: Share = 0.2
    safety_margin: Share = 0.1
    confirmation_steps: int = Field(default=10, ge=0)
    """Optimiser steps that the learned policy must propose the same before it is done live."""
    quiet_confidence: Share = 0.05
    """Confidence that an adaptation helps below which the learned policy is taken at its word that
    none does, although a rule has a cure; only going back is left to the rules even then."""
    max_adaptations_per_epoch: Count = 2
    budget_window_steps: Count = 1000
    """Optimiser steps after which an adaptation no longer counts, for runs without epochs."""
    cooldown_steps: Count = 100
    """Optimiser steps between two decisions."""
    decision_ttl_steps: Count = 100
    """Optimiser steps within which a decision must be applied."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_dim % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must divide "
                f"hidden_dim ({self.hidden_dim})"
            )
        if self.cooldown_steps < self.decision_ttl_steps:
            # Otherwise a decision still under way could be answered with a second one.
            raise ValueError("cooldown_steps must not be less than decision_ttl_steps")
        return self
