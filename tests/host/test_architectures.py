"""Tracing models that nobody here wrote: every parameter has its place, and no flow is missed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autograd_reference import first_tensor, make, missing_flows, traced
from zoo import ZOO

pytestmark = pytest.mark.filterwarnings(r"ignore:::(transformers|accelerate|torch)\b")  # not ours


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_has_one_layer_and_every_flow_is_there(name):
    sample = make(name)
    topology = traced(sample)
    assert topology.notes == ()
    assert len(topology.edges) >= len(topology) - 3
    total = sum(parameter.numel() for parameter in sample.model.parameters())
    assert sum(node.parameters for node in topology.nodes) == total
    assert missing_flows(sample, topology) == set()


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "mixtral", "resnet", "pyg_gat", "lstm"])
def test_tracing_changes_neither_the_output_nor_the_random_state(name):
    sample = make(name)
    state = torch.get_rng_state()
    expected = first_tensor(sample.run())
    torch.set_rng_state(state)
    traced(sample)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first_tensor(sample.run()), expected)


def test_layer_ids_are_the_same_in_every_process():
    names = ("bert", "t5", "swin", "pyg_gin")
    code = f"""
import torch
from autograd_reference import make, traced
for name in {names!r}:
    print([(node.layer_id, node.name) for node in traced(make(name)).nodes])
"""
    here = [
        str([(node.layer_id, node.name) for node in traced(make(name)).nodes]) for name in names
    ]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    assert done.stdout.splitlines() == here


def test_there_are_enough_of_them():
    assert len(ZOO) >= 38
