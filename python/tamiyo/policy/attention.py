"""Graph attention and graph convolution, written flat over the edge list."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tamiyo.policy.segments import segment_attention, segment_sum

__all__ = ["FlatGATv2", "FlatGCN", "gcn_weights"]


class FlatGATv2(nn.Module):
    """GATv2 (Brody et al. 2022, arXiv:2105.14491) with edge features, all heads in one call.

    Equal to PyTorch Geometric's `GATv2Conv(..., add_self_loops=False)`; parameters carry the same
    names, so a state dict loads either way. Written flat because the generic message-passing
    machinery costs more than the arithmetic on graphs of this size.

    Args:
        in_channels: Width of a node's input.
        out_channels: Width of one head; the output has `heads * out_channels`.
        heads: Number of attention heads.
        edge_dim: Width of an edge's features.
        negative_slope: Slope of the leaky ReLU below zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        edge_dim: int,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.heads, self.out_channels, self.negative_slope = heads, out_channels, negative_slope
        width = heads * out_channels
        self.lin_l = nn.Linear(in_channels, width)
        self.lin_r = nn.Linear(in_channels, width)
        self.lin_edge = nn.Linear(edge_dim, width, bias=False)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.att)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Messages of each node's incoming edges.

        Args:
            x: [N, in_channels].
            edge_index: [2, E], sender and receiver.
            edge_attr: [E, edge_dim].

        Returns:
            [N, heads * out_channels]; a node without incoming edges gets the bias.
        """
        source, target = edge_index
        shape = (-1, self.heads, self.out_channels)
        sent = self.lin_l(x).index_select(0, source)
        received = self.lin_r(x).index_select(0, target)
        mixed = functional.leaky_relu(
            torch.addmm(sent + received, edge_attr, self.lin_edge.weight.T), self.negative_slope
        )
        scores = (mixed.view(shape) * self.att).sum(-1)
        return segment_attention(sent.view(shape), scores, target, len(x)).flatten(1) + self.bias


class FlatGCN(nn.Module):
    """Graph convolution (Kipf and Welling 2017, arXiv:1609.02907)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor, self_weight: Tensor
    ) -> Tensor:
        """Normalised sum over neighbours and the node itself, with weights of `gcn_weights`."""
        source, target = edge_index
        hidden: Tensor = self.lin(x)
        own = torch.addcmul(self.bias, hidden, self_weight)
        messages = hidden.index_select(0, source) * edge_weight
        return own.index_add_(0, target, messages)


def gcn_weights(edge_index: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Symmetric normalisation with one added self-loop per node.

    Returns:
        Weights of the edges [E, 1], and of the added self-loops [N, 1].
    """
    source, target = edge_index
    ones = torch.ones(len(target), device=target.device)
    scale = (segment_sum(ones, target, nodes) + 1.0).rsqrt()
    ends = scale.index_select(0, source) * scale.index_select(0, target)
    return ends.unsqueeze(-1), scale.square().unsqueeze(-1)
