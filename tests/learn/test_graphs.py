import torch

from tamiyo.graph import _pyg
from tamiyo.learn.graphs import pack


def as_data(padded, row):
    """One padded graph as PyG `Data`, unpadded by hand."""
    nodes, edges = int(padded["node_mask"][row].sum()), int(padded["edge_mask"][row].sum())
    per_graph = ("global_features", "global_measured", "model_action_mask")
    return _pyg.Data(
        **{name: padded[name][row, :nodes] for name in ("x", "x_measured", "layer_type")},
        **{name: padded[name][row, :edges] for name in ("edge_attr", "edge_measured")},
        **{name: padded[name][row][None] for name in per_graph},
        action_mask=padded["action_mask"][row, :nodes],
        edge_index=padded["edge_index"][row, :, :edges],
        num_nodes=nodes,
    )


def test_packing_equals_pytorch_geometrics_batch(make_graphs):
    padded = make_graphs([3, 1, 5, 2], isolated=True)
    theirs = _pyg.Batch.from_data_list([as_data(padded, row) for row in range(4)])
    ours = pack(padded)
    for name in ("x", "layer_type", "edge_index", "edge_attr", "global_features", "batch"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("x_measured", "edge_measured", "global_measured", "action_mask"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        assert getattr(ours, name).dtype == torch.bool
    assert torch.equal(ours.model_action_mask, theirs.model_action_mask)


def test_whole_numbers_are_masks_too(make_graphs):
    padded = make_graphs([3, 4])
    numbers = {
        name: column.to(torch.int8) if column.dtype == torch.bool else column
        for name, column in padded.items()
    }
    assert torch.equal(pack(numbers).x_measured, pack(padded).x_measured)


def test_padding_has_no_influence_and_gets_no_gradient(make_graphs, make_network):
    network, padded = make_network(), make_graphs([3, 5, 2])
    padded["x"].requires_grad_()
    outputs = network(pack(padded))
    outputs["value_estimate"].sum().backward()
    real = padded["node_mask"]
    assert bool((padded["x"].grad[~real] == 0).all())
    assert bool((padded["x"].grad[real] != 0).any())
    dirty = {name: column.detach().clone() for name, column in padded.items()}
    dirty["x"][~real] = 99.0
    dirty["edge_index"].transpose(1, 2)[~dirty["edge_mask"]] = 1
    again = network(pack(dirty))
    assert torch.equal(again["layer_priority"], outputs["layer_priority"])
    assert len(outputs["layer_priority"]) == 10
