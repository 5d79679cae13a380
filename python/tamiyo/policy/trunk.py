"""From features to embeddings: encoder, residual graph blocks, pooling."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tamiyo.graph.schema import GLOBAL_DIM, LAYER_TYPES
from tamiyo.policy.attention import FlatGATv2, FlatGCN, gcn_weights
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.inputs import GraphInputs, MaskedNormalizer
from tamiyo.policy.segments import segment_max, segment_mean

__all__ = ["GraphBlock", "Trunk"]

ATTENTION_SHARE_AT_START = 0.6


class GraphBlock(nn.Module):
    """Pre-norm residual block: graph attention beside graph convolution, mixed by a learned gate.

    Args:
        width: Width D of a node; a multiple of `heads`.
        heads: Attention heads.
        edge_dim: Width of an edge's features.
    """

    def __init__(self, width: int, heads: int, edge_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = FlatGATv2(width, width // heads, heads, edge_dim)
        self.convolution = FlatGCN(width, width)
        share = ATTENTION_SHARE_AT_START
        self.gate = nn.Parameter(torch.tensor(math.log(share / (1 - share))))
        self.out = nn.Linear(width, width)

    def forward(
        self,
        hidden: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor,
        weights: tuple[Tensor, Tensor],
    ) -> Tensor:
        """[N, D] to [N, D]; `weights` are those of `gcn_weights`."""
        x = self.norm(hidden)
        attended = self.attention(x, edge_index, edge_attr)
        convolved = self.convolution(x, edge_index, *weights)
        mixed = torch.lerp(convolved, attended, self.gate.sigmoid())
        update: Tensor = self.out(functional.silu(mixed))
        return hidden + update


class Trunk(nn.Module):
    """Embeds every candidate target (layers, then whole models) and every graph.

    Args:
        config: Widths, depth and heads.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.node_norm = MaskedNormalizer(config.node_feature_dim)
        self.edge_norm = MaskedNormalizer(config.edge_feature_dim)
        self.global_norm = MaskedNormalizer(GLOBAL_DIM)
        self.node_in = nn.Linear(2 * config.node_feature_dim, width)
        self.type_embedding = nn.Embedding(len(LAYER_TYPES), width)
        self.encoder_norm = nn.LayerNorm(width)
        self.encoder_out = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            GraphBlock(width, config.num_attention_heads, 2 * config.edge_feature_dim)
            for _ in range(config.num_gnn_layers)
        )
        self.final_norm = nn.LayerNorm(width)
        self.pool = nn.Linear(2 * width + 2 * GLOBAL_DIM, width)
        self.pool_norm = nn.LayerNorm(width)
        self.whole_model = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: GraphInputs) -> tuple[Tensor, Tensor]:
        """Embeddings of the candidates [N + B, D] and of the graphs [B, D]."""
        hidden = self._encode(inputs)
        edges = self.edge_norm(inputs.edge_attr, inputs.edge_measured)
        weights = gcn_weights(inputs.edge_index, inputs.nodes)
        for block in self.blocks:
            hidden = block(hidden, inputs.edge_index, edges, weights)
        hidden = self.final_norm(hidden)
        pooled = torch.cat(
            [
                segment_mean(hidden, inputs.node_graph, inputs.graphs),
                segment_max(hidden, inputs.node_graph, inputs.graphs),
                self.global_norm(inputs.globals, inputs.globals_measured),
            ],
            dim=-1,
        )
        graph = self.pool_norm(functional.silu(self.pool(pooled)))
        wholes = self.whole_model.expand(inputs.graphs, -1)
        return torch.cat([hidden, wholes]), graph

    def fit_normalization(self, data: Any) -> None:
        """Standardise by what was measured in these graphs, a PyG `Batch` or what stands for it."""
        self.node_norm.fit(data.x, data.x_measured)
        self.edge_norm.fit(data.edge_attr, data.edge_measured)
        self.global_norm.fit(data.global_features, data.global_measured)

    def _encode(self, inputs: GraphInputs) -> Tensor:
        x: Tensor = self.node_in(self.node_norm(inputs.x, inputs.x_measured))
        x = x + self.type_embedding(inputs.layer_type)
        update: Tensor = self.encoder_out(functional.silu(self.encoder_norm(x)))
        return x + update
