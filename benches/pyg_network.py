"""The policy network on PyTorch Geometric's layers: the reference for the flat ones."""

import copy
from importlib import import_module

from torch import nn

from tamiyo.graph.schema import EDGE_DIM

# After Tamiyo, which silences the warning of its import.
pyg = import_module("torch_geometric.nn")


class PygConvolution(nn.Module):
    """PyTorch Geometric's convolution behind the signature of ours."""

    def __init__(self, width):
        super().__init__()
        self.convolution = pyg.GCNConv(width, width)

    def forward(self, x, edge_index, _edge_weight, _self_weight):
        return self.convolution(x, edge_index)


def on_pyg_layers(network):
    """The same network with the library's message passing."""
    other = copy.deepcopy(network)
    width = network.config.hidden_dim
    for block in other.trunk.blocks:
        ours = block.attention
        block.attention = pyg.GATv2Conv(
            width, ours.out_channels, heads=ours.heads, edge_dim=2 * EDGE_DIM, add_self_loops=False
        )
        block.attention.load_state_dict(ours.state_dict())
        convolution = PygConvolution(width)
        convolution.convolution.load_state_dict(block.convolution.state_dict())
        block.convolution = convolution
    return other
