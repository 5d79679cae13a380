"""Graphs without padding hold what the padded arrays hold."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tamiyo.envs.graph_space import GraphObservation, to_graph
from tamiyo.envs.sandbox_env import SandboxEnv
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingEnv
from tamiyo.graph.schema import NODE_DIM

SMALL = TrainingConfig(decisions=3, max_hidden=4, widths=(16,), held_out=64)


@pytest.fixture(params=["sandbox", "training"])
def env(request):
    return SandboxEnv() if request.param == "sandbox" else TrainingEnv(config=SMALL)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*")
def test_every_observation_is_in_the_space_and_keeps_the_contract(env):
    check_env(GraphObservation(env), skip_render_check=True)


def test_nothing_but_the_padding_is_lost(env):
    padded, _ = env.reset(seed=2)
    for _ in range(3):
        found = to_graph(padded)
        graph, nodes = found["graph"], int(padded["node_mask"].sum())
        edges = int(padded["edge_mask"].sum())
        assert len(graph.nodes) == nodes
        assert len(graph.edges) == len(graph.edge_links) == edges
        np.testing.assert_array_equal(graph.nodes[:, :NODE_DIM], padded["x"][:nodes])
        masks = graph.nodes[:, 2 * NODE_DIM + 1 :]
        np.testing.assert_array_equal(masks, padded["action_mask"][:nodes])
        np.testing.assert_array_equal(graph.nodes[:, 2 * NODE_DIM], padded["layer_type"][:nodes])
        np.testing.assert_array_equal(graph.edge_links.T, padded["edge_index"][:, :edges])
        assert graph.edge_links.max() < nodes
        np.testing.assert_array_equal(found["global_features"], padded["global_features"])
        padded, *_ = env.step(np.zeros(3, np.int64))


def test_environments_without_graphs_are_refused():
    with pytest.raises(TypeError, match="no padded graphs"):
        GraphObservation(gymnasium.make("CartPole-v1"))
