"""Settings of the objective: the components' weights, an episode's length, and limits."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["BANDS", "COMPONENTS", "RewardConfig"]

COMPONENTS = ("accuracy", "speed", "memory", "stability", "safety")
"""Columns of every array of components. The first is a gain, the others are costs and risks."""

BANDS = ("immediate", "short", "medium", "long")
"""Columns of every array of effects by horizon."""

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(gt=1)]
Error = Annotated[float, Field(gt=0)]


class RewardConfig(BaseModel):
    """Immutable and validated. `docs/rewards.md` has the scales that the weights apply to.

    Raises:
        pydantic.ValidationError: a value out of range, an unknown name, weights that are all zero,
            or horizons that do not increase.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    accuracy: Weight = 1.0
    """Held-out quality above that of the run left alone; 1 is from chance level to perfect."""
    speed: Weight = 0.1
    """Compute beyond that of the run left alone; 1 is twice as much over the whole episode."""
    memory: Weight = 0.05
    """Memory beyond that of the run left alone; 1 is twice as much over the whole episode."""
    stability: Weight = 0.1
    """Share of the episode that was unstable, beyond that of the run left alone."""
    safety: Weight = 0.1
    """Adaptations that had to be taken back, as a share of those allowed."""

    episode_length: Count = 32
    """Decision intervals in an episode. It never depends on what is decided."""
    horizons: tuple[Count, Count, Count] = (1, 4, 16)
    """Intervals at which the immediate, the short and the medium band end; the rest is long."""

    compute_limit: Ratio = 4.0
    """Compute over that of the run left alone at which nothing may grow any more."""
    memory_limit: Ratio = 4.0
    """The same for memory."""
    rollback_limit: Count = 4
    """Adaptations taken back in an episode after which only `restore` remains allowed."""
    forecast_error_limit: Error = 0.1
    """Standard error, at the end of an episode, of a forecast twin's quality. Above it a live run
    must not be changed, because its rewards would say nothing."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(self.weights):
            raise ValueError("at least one weight must be positive")
        immediate, short, medium = self.horizons
        if not immediate < short < medium:
            raise ValueError("horizons must increase")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights in the order of `COMPONENTS`, all positive or zero."""
        return tuple(float(getattr(self, name)) for name in COMPONENTS)
