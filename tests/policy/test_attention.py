from importlib import import_module

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.policy.attention import FlatGATv2, FlatGCN, gcn_weights

# After Tamiyo, which silences the warning of its import.
pyg = import_module("torch_geometric.nn")

graphs = st.integers(1, 9).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=30),
        st.integers(0, 2**16),
    )
)


def edge_tensor(edges):
    return torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T.contiguous()


@settings(max_examples=40, deadline=None)
@given(graphs)
def test_equal_to_the_reference_attention_with_the_same_weights(graph):
    nodes, edges, seed = graph
    generator = torch.Generator().manual_seed(seed)
    reference = pyg.GATv2Conv(6, 5, heads=3, edge_dim=4, add_self_loops=False)
    flat = FlatGATv2(6, 5, heads=3, edge_dim=4)
    flat.load_state_dict(reference.state_dict())
    x = torch.randn(nodes, 6, generator=generator)
    attributes = torch.randn(len(edges), 4, generator=generator)
    index = edge_tensor(edges)
    torch.testing.assert_close(
        flat(x, index, attributes), reference(x, index, attributes), rtol=1e-5, atol=1e-5
    )


def test_gradients_equal_those_of_the_reference():
    reference = pyg.GATv2Conv(6, 5, heads=3, edge_dim=4, add_self_loops=False)
    flat = FlatGATv2(6, 5, heads=3, edge_dim=4)
    flat.load_state_dict(reference.state_dict())
    x, attributes = torch.randn(4, 6), torch.randn(5, 4)
    index = edge_tensor([(0, 1), (2, 1), (3, 1), (1, 0), (2, 2)])
    for layer in (flat, reference):
        layer(x, index, attributes).square().sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in flat.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(graphs)
def test_convolution_equal_to_the_reference(graph):
    nodes, edges, seed = graph
    # The reference keeps a self-loop that is there instead of adding one.
    edges = [(source, target) for source, target in edges if source != target]
    generator = torch.Generator().manual_seed(seed)
    reference, flat = pyg.GCNConv(6, 5), FlatGCN(6, 5)
    flat.load_state_dict(reference.state_dict())
    x, index = torch.randn(nodes, 6, generator=generator, requires_grad=True), edge_tensor(edges)
    found, expected = flat(x, index, *gcn_weights(index, nodes)), reference(x, index)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    names = [name for name, _ in flat.named_parameters()]
    gradients = [
        torch.autograd.grad(output.square().sum(), [x, *map(layer.get_parameter, names)])
        for output, layer in ((found, flat), (expected, reference))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
