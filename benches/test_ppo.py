"""One PPO update on graphs of 50 layers, on one core.

    OMP_NUM_THREADS=1 pytest benches/test_ppo.py --import-mode=importlib

A graph-epoch is one graph in one epoch: packing, forward, all losses, backward and its share of
the optimiser's step, with the default network. Beside it, in the same rounds, the same network on
PyTorch Geometric's layers. The floor is what the matrix products alone would take at the rate that
this machine multiplies large matrices. Seconds are CPU time of the process.
"""

import copy
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from pyg_network import on_pyg_layers
from tamiyo.graph.schema import ACTIONS, EDGE_DIM, GLOBAL_DIM, NODE_DIM
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.experience import Experience
from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.rollout import Rollout
from tamiyo.learn.segments import TARGETS
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import Action

GRAPHS, LAYERS, EPOCHS = 64, 50, 4
BAR = 410.0
ROUNDS = 7


def padded_graphs():
    """Chains with a skip over every fifth layer, edges both ways, [1, GRAPHS, ...]."""
    generator = torch.Generator().manual_seed(0)
    chain = [(i, i + 1) for i in range(LAYERS - 1)]
    skips = [(i, i + 5) for i in range(0, LAYERS - 5, 5)]
    there = torch.tensor(chain + skips).T
    edges = torch.cat([there, there.flip(0)], dim=1)
    shape, count = (1, GRAPHS), edges.shape[1]

    def draw(*size):
        return torch.randn(*shape, *size, generator=generator)

    def all_true(*size):
        return torch.ones(*shape, *size, dtype=torch.bool)

    return {
        "x": draw(LAYERS, NODE_DIM),
        "x_measured": all_true(LAYERS, NODE_DIM),
        "node_mask": all_true(LAYERS),
        "layer_type": torch.randint(20, (*shape, LAYERS), generator=generator),
        "edge_index": edges.expand(*shape, 2, count),
        "edge_attr": draw(count, EDGE_DIM),
        "edge_measured": all_true(count, EDGE_DIM),
        "edge_mask": all_true(count),
        "global_features": draw(GLOBAL_DIM),
        "global_measured": all_true(GLOBAL_DIM),
        "action_mask": all_true(LAYERS, len(ACTIONS)),
        "model_action_mask": all_true(len(ACTIONS)),
    }


def make_rollout(network):
    """As many decisions as graphs, drawn by the network itself, with outcomes for every head."""
    observations = padded_graphs()
    everywhere = torch.ones(1, GRAPHS, dtype=torch.bool)
    zeros = torch.zeros(1, GRAPHS)
    experience = Experience(
        observations=observations,
        actions=Action(everywhere, zeros.long(), zeros.long()),
        log_prob=zeros,
        rewards=torch.randn(1, GRAPHS, generator=torch.Generator().manual_seed(1)),
        terminated=everywhere,
        done=everywhere,
        sampled=everywhere,
        valid=everywhere,
        finals={name: column[0, :0] for name, column in observations.items()},
        final_at=torch.empty(0, dtype=torch.long),
        targets=torch.full((1, GRAPHS, len(TARGETS)), 0.5),
    )
    with torch.no_grad():
        distribution = network(experience.graphs(torch.arange(GRAPHS)))["distribution"]
        drawn = distribution.sample(torch.Generator().manual_seed(2), 0.5)
        experience.log_prob.copy_(distribution.log_prob(drawn)[None])
    for name in ("adapt", "target", "type"):
        getattr(experience.actions, name).copy_(getattr(drawn, name)[None])
    return Rollout.judged_by(network, experience, ())


def make_update(network, **settings):
    """A call that does a whole update, and its number of graph-epochs."""
    config = ProductionTrainingConfig(
        batch_size=GRAPHS,
        ppo_epochs=EPOCHS,
        target_kl=None,
        replay_share=0.0,
        learning_rate=1e-6,
        **settings,
    )
    learner = PolicyLearner(network, config)
    rollout = make_rollout(network)
    return lambda: learner.update(rollout)


def seconds(call):
    started = time.process_time()
    call()
    return time.process_time() - started


def multiplications_per_second():
    """Floating-point operations per second of a large matrix product."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / min(seconds(lambda: a @ b) for _ in range(5))


def test_update(record_property, capsys):
    torch.manual_seed(0)
    network = EnhancedTamiyoPolicyGNN()
    calls = {
        "ours": make_update(copy.deepcopy(network)),
        "ours, no uncertainty loss": make_update(
            copy.deepcopy(network), uncertainty_regularization=0.0
        ),
        "on PyG's layers": make_update(on_pyg_layers(network)),
    }
    for call in calls.values():
        call()
    # Side by side, so that all of them meet the same disturbances.
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    best = {name: min(row[name] for row in times) for name in calls}
    counter = FlopCounterMode(display=False)
    with counter:
        calls["ours"]()
    floor = counter.get_total_flops() / multiplications_per_second()
    rates = {name: GRAPHS * EPOCHS / best[name] for name in calls}
    with capsys.disabled():
        for name, rate in rates.items():
            print(f"\n{name}: {rate:.0f} graph-epochs/s", end="")
        print(f"\nfloor (matrix products alone): {GRAPHS * EPOCHS / floor:.0f} graph-epochs/s")
        print(f"share of the floor: {floor / best['ours']:.2f}, bar {BAR:.0f}")
    for name, rate in rates.items():
        record_property(name, rate)
    assert rates["ours"] >= BAR
