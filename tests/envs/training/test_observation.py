"""Batched observations are the graphs that `ModelGraphBuilder` makes of the same runs, live."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from plain_hosts import Run
from tamiyo import _core
from tamiyo.contracts import HealthSignal, PerformanceMetrics, SignalBatch
from tamiyo.envs.training.cohort import capped
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.faults import Fault
from tamiyo.envs.training.graphs import data_flow
from tamiyo.envs.training.hosts import HostSpec
from tamiyo.envs.training.sampling import Scenario, TrainingConfig
from tamiyo.envs.training.sensing import SensingConfig
from tamiyo.graph import ModelGraphBuilder
from tamiyo.graph.schema import ACTIONS, GLOBAL_COLUMNS
from tamiyo.host.watch import LossHistory
from watched_plans import watched

CONFIG = TrainingConfig(decisions=5, interval=10, max_hidden=5, held_out=50)
WAYS = {
    "plain": SensingConfig(),
    "varied": SensingConfig(
        paces=(2,),
        readings=(3,),
        leads=(1,),
        eager=(True,),
        windows=(4,),
        reports_every=(1, 2, 4),
        held_out_unknown=0.5,
        length_unknown=0.5,
    ),
}
SPECS = (
    HostSpec("digits", (16, 16, 16, 16, 16), "residual", "relu", seed=1, schedule="warmup"),
    HostSpec("wine", (8, 12, 12, 8), "skip", "relu", "sgd", 0.05, seed=3, schedule="cosine"),
    HostSpec("rings", (12, 9, 5), "plain", "tanh", "sgd", 0.1, seed=2),
    HostSpec("digits", (14, 6), "plain", "sigmoid", "sgd", 0.2, seed=4),
    HostSpec("breast_cancer", (16,), "plain", "leaky_relu", "sgd", 1e-4, seed=5),
)

_SNAPSHOT = [column.name for column in GLOBAL_COLUMNS].index("has_snapshot")


class LiveRun:
    """A plain run under the live probe, reported as a live host reports.

    Args:
        spec: The run.
        sensing: How its cohort is watched.
        host: Its place there.
    """

    def __init__(self, spec, sensing, host):
        self.sensing, self.host, self.moments = sensing, host, 0
        self.total = sensing.steps(CONFIG.decisions)
        self.run = Run(spec, self.total)
        recorder = self.run.record()
        self.topology = recorder.topology("r")
        self.layers = recorder.layers()
        self.signals, self.metrics, self.losses = [], [], LossHistory()
        for _ in range(sensing.lead):
            self.run.train()

    def interval(self):
        for stride in self.sensing.strides(self.moments):
            for _ in range(stride - 1):
                self.losses.observe(self.run.train())
            self.read()
        self.moments += 1
        if self.moments % self.sensing.reports_every[self.host] == 0:
            self.metrics.append(self.report(self.run.steps))

    def read(self):
        loss, sample = self.run.sample(self.layers)
        self.losses.observe(loss)
        step = self.run.steps
        for layer in range(len(self.topology)):
            fields = {name: column[layer].item() for name, column in sample.columns.items()}
            # The clock of the environment is the optimiser step, and it times nothing.
            fields["execution_latency"] = np.nan
            self.signals.append(
                HealthSignal(layer_id=layer, epoch=0, step=step, timestamp=float(step), **fields)
            )

    def report(self, step):
        loss, nonfinite = self.losses.report()
        known = self.sensing.held_out_known[self.host]
        held_out_loss, accuracy = self.evaluate() if known else (None, None)
        return PerformanceMetrics(
            run="r",
            step=step,
            timestamp=float(step),
            loss=loss,
            loss_level=self.losses.slow_level,
            loss_nonfinite=nonfinite,
            validation_loss=held_out_loss,
            validation_accuracy=accuracy,
            learning_rate=self.run.optimizer.param_groups[0]["lr"],
            progress=step / self.total if self.sensing.length_known[self.host] else None,
        )

    @torch.no_grad()
    def evaluate(self):
        data = self.run.spec.dataset
        index = np.arange(CONFIG.held_out) % len(data.held_out_labels)
        logits = self.run.model(torch.as_tensor(data.held_out[index]))
        labels = torch.as_tensor(data.held_out_labels[index])
        loss = capped(functional.cross_entropy(logits, labels)).item()
        return loss, (logits.argmax(-1) == labels).float().mean().item()

    def graph(self):
        batch = SignalBatch.from_signals(self.signals)
        layers = _core.window_features(batch.columns, window=self.sensing.window)
        # A live collector remembers how a layer began after its window has moved on.
        whole = _core.window_features(batch.columns, window=len(self.signals))
        layers["activation_variance_start"] = whole["activation_variance_start"]
        batch = SignalBatch(batch.columns, layers, self.topology, tuple(self.metrics))
        return ModelGraphBuilder().build_model_graph(batch, budget_used=0.0).graph_data


@pytest.fixture(scope="module", params=WAYS)
def episode_and_lives(request):
    """An episode in which nothing is done, with all of its observations, and the live runs."""
    specs = sorted(SPECS, key=lambda spec: -spec.hidden)
    scenarios = [Scenario(spec, Fault()) for spec in specs]
    plan = watched(scenarios, 16, replace(CONFIG, sensing=WAYS[request.param]))
    episode = Episode(plan, CONFIG, np.random.default_rng(0))
    lives = [LiveRun(spec, plan.sensing, host) for host, spec in enumerate(specs)]
    moments = []
    for moment in range(CONFIG.decisions + 1):
        if moment:
            episode.step(np.zeros((len(specs), 3), np.int64))
        for live in lives:
            live.interval()
        moments.append((episode.observation(), [live.graph() for live in lives]))
    return specs, lives, moments


@pytest.mark.parametrize(
    ("column", "mask"),
    [("x", "x_measured"), ("edge_attr", "edge_measured"), ("global_features", "global_measured")],
)
def test_features_equal_those_of_the_graph_builder(episode_and_lives, column, mask):
    specs, _, moments = episode_and_lives
    for observation, graphs in moments:
        for host, (spec, graph) in enumerate(zip(specs, graphs, strict=True)):
            if column == "edge_attr":
                rows = _matching_edges(observation["edge_index"][host], graph.edge_index.numpy())
            else:
                rows = slice(0, len(graph[column])) if column == "x" else slice(None)
            measured = graph[mask].numpy().squeeze()
            mine = observation[mask][host][rows].astype(bool)
            if column == "global_features":
                # Whether there is a snapshot depends on the keeper, which is not compared here.
                measured[_SNAPSHOT] = mine[_SNAPSHOT] = False
            np.testing.assert_array_equal(mine, measured, err_msg=str(spec))
            np.testing.assert_allclose(
                np.where(measured, observation[column][host][rows], 0.0),
                np.where(measured, graph[column].numpy().squeeze(), 0.0),
                atol=1e-3,
                err_msg=str(spec),
            )


def test_structure_equals_the_traced_one(episode_and_lives):
    specs, lives, moments = episode_and_lives
    observation, graphs = moments[0]
    for host, (spec, live, graph) in enumerate(zip(specs, lives, graphs, strict=True)):
        nodes = len(live.topology)
        assert observation["node_mask"][host].tolist()[:nodes] == [1] * nodes
        assert observation["node_mask"][host].sum() == nodes
        np.testing.assert_array_equal(observation["layer_type"][host, :nodes], graph.layer_type)
        traced = {(edge.source, edge.target, edge.joins) for edge in live.topology.edges}
        assert set(data_flow(spec)) == traced
        assert observation["edge_mask"][host].sum() == 2 * len(traced)


def test_nothing_is_legal_that_the_live_host_would_not_do(episode_and_lives):
    specs, lives, moments = episode_and_lives
    for observation, _ in moments:
        for host, live in enumerate(lives):
            for node in live.topology.nodes:
                legal = {
                    ACTIONS[index]
                    for index in np.flatnonzero(observation["action_mask"][host, node.layer_id])
                }
                assert legal <= set(node.actions), (specs[host], node)
            model = np.flatnonzero(observation["model_action_mask"][host])
            assert {ACTIONS[index] for index in model} <= set(live.topology.actions)


def test_what_the_live_host_would_do_is_legal_unless_it_has_no_effect(episode_and_lives):
    specs, lives, moments = episode_and_lives
    observation = moments[0][0]
    for host, (spec, live) in enumerate(zip(specs, lives, strict=True)):
        for node in live.topology.nodes:
            row = observation["action_mask"][host, node.layer_id]
            expected = set(node.actions) - {"add_seed", "insert_normalization", "prune"}
            if spec.activation == "leaky_relu":
                expected -= {"change_activation"}
            if node.shape == (16,):
                expected -= {"widen"}
            assert expected <= {ACTIONS[index] for index in np.flatnonzero(row)}, (spec, node)


def _matching_edges(mine, theirs):
    """Where each of their edges is among mine."""
    place = {tuple(edge): index for index, edge in reversed(list(enumerate(mine.T.tolist())))}
    return np.array([place[tuple(edge)] for edge in theirs.T.tolist()])
