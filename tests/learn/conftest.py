"""Random graphs, small networks, and rollouts of the sandbox."""

import gymnasium
import pytest
import torch

import tamiyo.envs  # noqa: F401 - registers the environments
from tamiyo.graph.schema import ACTIONS, EDGE_DIM, GLOBAL_DIM, LAYER_TYPES, NODE_DIM
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.rollout import collect
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig


@pytest.fixture
def make_graphs():
    """Padded chains of the given sizes, both ways; the last node of each may be isolated."""

    def make(sizes, *, isolated=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        count, nodes = len(sizes), max(sizes)
        edges = max(2 * (nodes - 1 - isolated), 1)
        real = torch.arange(nodes) < torch.tensor(sizes)[:, None]

        def draw(*shape):
            return torch.randn(count, *shape, generator=generator).clamp(-3, 3)

        def coin(share, *shape):
            return torch.rand(count, *shape, generator=generator) < share

        edge_index = torch.zeros(count, 2, edges, dtype=torch.long)
        edge_mask = torch.zeros(count, edges, dtype=torch.bool)
        for row, size in enumerate(sizes):
            links = torch.arange(max(size - 1 - isolated, 0))
            both = torch.stack([torch.cat([links, links + 1]), torch.cat([links + 1, links])])
            edge_index[row, :, : both.shape[1]] = both
            edge_mask[row, : both.shape[1]] = True
        legal = coin(0.5, nodes, len(ACTIONS))
        legal[..., 4] = True
        return {
            "x": draw(nodes, NODE_DIM),
            "x_measured": coin(0.8, nodes, NODE_DIM),
            "node_mask": real,
            "layer_type": torch.randint(len(LAYER_TYPES), (count, nodes), generator=generator),
            "edge_index": edge_index,
            "edge_attr": draw(edges, EDGE_DIM),
            "edge_measured": coin(0.8, edges, EDGE_DIM),
            "edge_mask": edge_mask,
            "global_features": draw(GLOBAL_DIM),
            "global_measured": coin(0.8, GLOBAL_DIM),
            "action_mask": legal & real[..., None],
            "model_action_mask": coin(0.5, len(ACTIONS)),
        }

    return make


@pytest.fixture
def make_network():
    """A small network whose outputs differ visibly from graph to graph."""

    def make(seed=0, *, lively=True, **settings):
        defaults = {"hidden_dim": 16, "num_gnn_layers": 2, "num_attention_heads": 2}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = EnhancedTamiyoPolicyGNN(PolicyConfig(**defaults | settings))
            for name, parameter in network.named_parameters():
                if lively and name.startswith("heads") and name.endswith("last.weight"):
                    torch.nn.init.normal_(parameter, std=0.5)
        return network

    return make


@pytest.fixture
def make_config():
    """Settings of a short training."""

    def make(**settings):
        defaults = {
            "batch_size": 32,
            "rollout_length": 16,
            "num_training_steps": 1000,
            "replay_share": 0.0,
        }
        return ProductionTrainingConfig(**defaults | settings)

    return make


@pytest.fixture
def make_env():
    def make(count=8):
        return gymnasium.make_vec(
            "tamiyo/Sandbox-v0", num_envs=count, vectorization_mode="vector_entry_point"
        )

    return make


@pytest.fixture
def make_rollout(make_env, make_network):
    def make(network=None, *, steps=16, rows=8, seed=0, exploration=0.0):
        network = make_network() if network is None else network
        return collect(make_env(rows), network, steps, seed=seed, exploration=exploration)

    return make
