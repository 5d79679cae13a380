"""The network's heads, and their Monte Carlo dropout in one batched pass.

Dropout acts on the hidden units of a head, one mask per sample for all nodes: a sample is then one
thinned network (Gal and Ghahramani 2016, arXiv:1506.02142). The mask folds into the last linear
map, so S samples of N nodes are a single matrix product.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from tamiyo.graph.schema import ACTIONS

__all__ = ["CANDIDATE_HEADS", "GRAPH_HEADS", "Head", "Heads", "sample_unit_masks"]

GRAPH_HEADS: Mapping[str, int] = {
    "adapt": 1,
    "urgency": 1,
    "risk": 1,
    "safety": 1,
    "value": 1,
    "temporal": 3,
}
"""Heads over a graph's embedding, and how many numbers each gives."""

CANDIDATE_HEADS: Mapping[str, int] = {"target": 1, "adaptation": len(ACTIONS)}
"""Heads over a candidate's embedding and its graph's."""

POLICY_GAIN = 0.01
ADAPT_BIAS = -2.0
"""An untaught network should leave the run alone."""


class Head(nn.Module):
    """Linear, SiLU, dropout of units, linear.

    Args:
        width: Width D of the input and of the hidden units.
        outputs: Numbers per row O.
        with_context: Whether a row also sees its graph's embedding.
        gain: Scale of the last layer's initial weights.
    """

    def __init__(self, width: int, outputs: int, *, with_context: bool, gain: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.context = nn.Linear(width, width, bias=False) if with_context else None
        self.last = nn.Linear(width, outputs)
        nn.init.orthogonal_(self.last.weight, gain)
        nn.init.zeros_(self.last.bias)

    def units(
        self, rows: Tensor, graph: Tensor | None = None, row_graph: Tensor | None = None
    ) -> Tensor:
        """Hidden units [R, D] of the rows, with the embedding of each row's graph."""
        hidden: Tensor = self.first(rows)
        if self.context is not None and graph is not None and row_graph is not None:
            hidden = hidden + self.context(graph).index_select(0, row_graph)
        return functional.silu(hidden)

    def sampled(self, units: Tensor, masks: Tensor) -> Tensor:
        """Outputs under each of S unit masks: [R, D] and [S, D] to [R, S, O]."""
        weights = masks[:, None, :] * self.last.weight
        flat = units @ weights.flatten(0, 1).T
        return flat.view(len(units), len(masks), -1) + self.last.bias


class Heads(nn.Module):
    """All heads by name.

    Args:
        width: Width of the embeddings.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.graph = nn.ModuleDict(
            {
                name: Head(
                    width,
                    outputs,
                    with_context=False,
                    gain=1.0 if name == "value" else POLICY_GAIN,
                )
                for name, outputs in GRAPH_HEADS.items()
            }
        )
        self.candidate = nn.ModuleDict(
            {
                name: Head(width, outputs, with_context=True, gain=POLICY_GAIN)
                for name, outputs in CANDIDATE_HEADS.items()
            }
        )
        nn.init.constant_(self.head("adapt").last.bias, ADAPT_BIAS)

    def head(self, name: str) -> Head:
        """The head of this name."""
        head = self.graph[name] if name in GRAPH_HEADS else self.candidate[name]
        assert isinstance(head, Head)  # noqa: S101 - narrows ModuleDict's type
        return head

    def units(self, candidates: Tensor, graph: Tensor, row_graph: Tensor) -> dict[str, Tensor]:
        """Hidden units of every head: [B, D] for graph heads, [N + B, D] for candidate heads."""
        return {name: self.head(name).units(graph) for name in GRAPH_HEADS} | {
            name: self.head(name).units(candidates, graph, row_graph) for name in CANDIDATE_HEADS
        }

    def outputs(self, units: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each head says, without dropout; single numbers lose their last dimension."""
        return {name: self.head(name).last(rows).squeeze(-1) for name, rows in units.items()}


def sample_unit_masks(
    samples: int, width: int, dropout: float, generator: torch.Generator
) -> Tensor:
    """[samples, width] inverted-dropout masks: 0 with probability `dropout`, else 1 / (1 - p)."""
    kept = torch.rand(samples, width, generator=generator, device=generator.device) >= dropout
    return kept.float() / (1.0 - dropout)
