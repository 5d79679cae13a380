"""The tensors of a graph, or of a batch of graphs, as the network takes them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GraphInputs", "MaskedNormalizer"]


@dataclass(frozen=True, slots=True)
class GraphInputs:
    """N nodes, E directed edges and B graphs, unpacked from PyG `Data` or `Batch`.

    An action has a *candidate* as its target: the N layers, followed by the B graphs as wholes.
    """

    x: Tensor
    x_measured: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    edge_measured: Tensor
    layer_type: Tensor
    globals: Tensor
    globals_measured: Tensor
    legal: Tensor
    """[N + B, types], bool: what each candidate can take."""
    node_graph: Tensor
    """[N]: the graph of each node, ascending."""
    candidate_graph: Tensor
    """[N + B]: the graph of each candidate."""

    @classmethod
    def from_data(cls, data: Any) -> "GraphInputs":
        """Unpack what `ModelGraphBuilder` packed; see there for the fields."""
        x, graphs = data.x, len(data.global_features)
        node_graph = data.batch
        if node_graph is None:
            node_graph = torch.zeros(len(x), dtype=torch.long, device=x.device)
        wholes = torch.arange(graphs, device=x.device)
        return cls(
            x=x,
            x_measured=data.x_measured,
            edge_index=data.edge_index,
            edge_attr=data.edge_attr,
            edge_measured=data.edge_measured,
            layer_type=data.layer_type,
            globals=data.global_features,
            globals_measured=data.global_measured,
            legal=torch.cat([data.action_mask, data.model_action_mask]),
            node_graph=node_graph,
            candidate_graph=torch.cat([node_graph, wholes]),
        )

    @property
    def nodes(self) -> int:
        """N."""
        return len(self.x)

    @property
    def graphs(self) -> int:
        """B."""
        return len(self.globals)


class MaskedNormalizer(nn.Module):
    """Standardises measured values and appends the mask; a missing value becomes 0.

    The statistics are buffers, so that they are frozen into a checkpoint. A column that was never
    measured when they were fitted has an infinite scale, and counts as missing from then on: what
    the network would make of it was never trained.

    Args:
        columns: Number of columns F.
        limit: Standardised values are clipped to plus and minus this.
    """

    mean: Tensor
    scale: Tensor
    share: Tensor
    """[F]: of the rows that it was fitted on, those in which each column was measured."""

    def __init__(self, columns: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("share", torch.zeros(columns))

    def forward(self, values: Tensor, measured: Tensor) -> Tensor:
        """[R, F] and its mask to [R, 2F]."""
        known = self.known(measured)
        standard = ((values - self.mean) / self.scale).clamp(-self.limit, self.limit)
        return torch.cat([standard.masked_fill(~known, 0.0), known.to(values.dtype)], dim=-1)

    def known(self, measured: Tensor) -> Tensor:
        """Which of the measured values [R, F] the network can make something of."""
        return measured & (self.scale < torch.inf)

    @torch.no_grad()
    def fit(self, values: Tensor, measured: Tensor) -> None:
        """Take mean and deviation per column from the measured values among [R, F].

        A column with a single measured value, or a constant one, is only centred.
        """
        count = measured.sum(0)
        self.share.copy_(count / max(len(measured), 1))
        kept = values.masked_fill(~measured, 0.0)
        mean = kept.sum(0) / count.clamp_min(1)
        variance = ((kept - mean).masked_fill(~measured, 0.0).square()).sum(0)
        deviation = (variance / (count - 1).clamp_min(1)).sqrt()
        self.mean.copy_(mean)
        scale = torch.where((count > 1) & (deviation > 1e-6), deviation, 1.0)
        self.scale.copy_(scale.masked_fill(count == 0, torch.inf))
