"""Padded graphs as environments and the replay memory hold them, packed for the network."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["FIELDS", "GraphBatch", "pack"]

FIELDS = (
    "x",
    "x_measured",
    "node_mask",
    "layer_type",
    "edge_index",
    "edge_attr",
    "edge_measured",
    "edge_mask",
    "global_features",
    "global_measured",
    "action_mask",
    "model_action_mask",
)
"""Names of the arrays of a padded observation; `tamiyo.envs.observations` gives their shapes."""


@dataclass(frozen=True, slots=True)
class GraphBatch:
    """B graphs with N layers and E directed edges together, as the network reads them.

    The fields are those of a PyG `Batch` of what `ModelGraphBuilder` makes, without the cost of
    making one.
    """

    x: Tensor
    x_measured: Tensor
    layer_type: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    edge_measured: Tensor
    global_features: Tensor
    global_measured: Tensor
    action_mask: Tensor
    model_action_mask: Tensor
    batch: Tensor

    def to(self, device: torch.device) -> "GraphBatch":
        """The same graphs on another device."""
        return GraphBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def pack(padded: Mapping[str, Tensor]) -> GraphBatch:
    """Drop the padding.

    Args:
        padded: The arrays of `FIELDS`, each with B graphs along its first dimension. Real nodes and
            edges come before padded ones; masks are bool or whole numbers.
    """
    real = padded["node_mask"].bool()
    linked = padded["edge_mask"].bool()
    sizes = real.sum(1)
    offsets = sizes.cumsum(0) - sizes
    graph = torch.arange(len(real), device=real.device)
    edges = padded["edge_index"] + offsets[:, None, None]
    return GraphBatch(
        x=padded["x"][real],
        x_measured=padded["x_measured"][real].bool(),
        layer_type=padded["layer_type"][real],
        edge_index=edges.transpose(1, 2)[linked].T.contiguous(),
        edge_attr=padded["edge_attr"][linked],
        edge_measured=padded["edge_measured"][linked].bool(),
        global_features=padded["global_features"],
        global_measured=padded["global_measured"].bool(),
        action_mask=padded["action_mask"][real].bool(),
        model_action_mask=padded["model_action_mask"].bool(),
        batch=graph.repeat_interleave(sizes),
    )
