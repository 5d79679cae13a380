"""Experience in columns: what was seen, what was done about it, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.learn.graphs import GraphBatch, pack
from tamiyo.policy.actions import Action

__all__ = ["Experience", "flat_action"]


@dataclass(frozen=True, eq=False, slots=True)
class Experience:
    """B rows of T consecutive decisions.

    A row may hold several episodes one after the other, or a part of one. Where a row is shorter
    than T its end is not `valid`.
    """

    observations: Mapping[str, Tensor]
    """Padded graphs, each [T, B, ...]; see `tamiyo.learn.graphs.FIELDS`."""
    actions: Action
    """Each field [T, B]."""
    log_prob: Tensor
    """[T, B], of the behaviour policy μ; 0 where it did not draw lots."""
    rewards: Tensor
    terminated: Tensor
    done: Tensor
    """[T, B], bool: no decision of the same episode follows in this row."""
    sampled: Tensor
    """[T, B], bool: drawn by the policy and carried out unchanged. Only such train the policy."""
    valid: Tensor
    finals: Mapping[str, Tensor]
    """Padded graphs [F, ...]: the observations after the steps of `final_at`."""
    final_at: Tensor
    """[F], ascending flattened steps of [T, B]: those `done` but not `terminated`."""
    targets: Tensor
    """[T, B, 6], what the other heads should have said: `segments.TARGETS`, NaN where unknown."""

    @property
    def shape(self) -> tuple[int, int]:
        """T and B."""
        steps, rows = self.rewards.shape
        return steps, rows

    def graphs(self, index: Tensor) -> GraphBatch:
        """The observations at some of the flattened [T * B] steps."""
        return pack(
            {name: column.flatten(0, 1)[index] for name, column in self.observations.items()}
        )

    def next_values(self, values: Tensor, final_values: Tensor) -> Tensor:
        """[T, B]: the value of what followed each step; 0 where the episode terminated.

        Args:
            values: [T, B], of the observations.
            final_values: [F], of `finals`.
        """
        following = torch.cat([values[1:], torch.zeros_like(values[:1])])
        following = following.masked_fill(self.done, 0.0).flatten()
        following[self.final_at] = final_values.to(following.dtype)
        return following.view_as(values)


def flat_action(action: Action, index: Tensor) -> Action:
    """The actions at some of the flattened steps."""
    return Action(
        action.adapt.flatten()[index], action.target.flatten()[index], action.type.flatten()[index]
    )
