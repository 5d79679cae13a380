"""From a per-layer snapshot to a decision, on one core.

    OMP_NUM_THREADS=1 pytest benches/test_decision_cycle.py --import-mode=importlib

The 99th percentile of the design is asserted: 10 ms from snapshot to decision for 50 layers. It is
of the thread's CPU time, which is the latency on a core that nobody else uses; `test_policy.py` has
the part of the policy. The attention written flat runs beside PyTorch Geometric's layer, so that
their quotient is of one machine.
"""

from importlib import import_module

import pytest
import torch

from moments import snapshot, thread_milliseconds
from tamiyo.graph import ModelGraphBuilder
from tamiyo.policy import EnhancedTamiyoPolicyGNN, RulesPolicy
from tamiyo.policy.attention import FlatGATv2

# After Tamiyo, which silences the warning of its import.
pyg = import_module("torch_geometric.nn")

SIZES = (50, 1000)
CYCLE_BAR_MS = {50: 10.0}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Shape and cost of a trained policy; the weights come from a checkpoint but mean nothing."""
    path = tmp_path_factory.mktemp("policy")
    EnhancedTamiyoPolicyGNN().save_pretrained(path, {"command": "benchmark of the cost only"})
    return EnhancedTamiyoPolicyGNN.from_pretrained(path)


@pytest.mark.parametrize("layers", SIZES)
def test_build(benchmark, layers):
    builder, batch = ModelGraphBuilder(), snapshot(layers)
    benchmark(builder.build_model_graph, batch)


@pytest.mark.parametrize("layers", SIZES)
def test_cycle(benchmark, policy, layers):
    builder, batch = ModelGraphBuilder(), snapshot(layers)

    def cycle():
        return policy.decide(builder.build_model_graph(batch))

    benchmark(cycle)
    if layers in CYCLE_BAR_MS:
        assert thread_milliseconds(cycle, repeats=300).p99 < CYCLE_BAR_MS[layers]


@pytest.mark.parametrize("layers", SIZES)
def test_rules(benchmark, layers):
    state = ModelGraphBuilder().build_model_graph(snapshot(layers))
    benchmark(RulesPolicy().decide, state)


@pytest.mark.parametrize("layers", SIZES)
@pytest.mark.parametrize("form", ["flat", "pyg"])
@pytest.mark.benchmark(group="attention")
def test_attention(benchmark, form, layers):
    reference = pyg.GATv2Conv(128, 32, heads=4, edge_dim=16, add_self_loops=False)
    flat = FlatGATv2(128, 32, heads=4, edge_dim=16)
    flat.load_state_dict(reference.state_dict())
    data = ModelGraphBuilder().build_model_graph(snapshot(layers)).graph_data
    x, attributes = torch.randn(layers, 128), torch.randn(data.edge_index.shape[1], 16)
    layer = flat if form == "flat" else reference
    with torch.inference_mode():
        benchmark(layer, x, data.edge_index, attributes)
