"""Live doses are those of Training-v0: the same network, measured live and batched, is given the
same numbers, and what the live host then does is what the environment did.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from plain_hosts import Run
from tamiyo.contracts import (
    AdaptationType,
    HealthSignal,
    ModelTopology,
    SignalBatch,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.envs.training.adaptations import Clinic
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import HostSpec
from tamiyo.envs.training.measurements import activity, measure
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.snapshots import SnapshotKeeper
from tamiyo.graph import ModelGraphBuilder
from tamiyo.host.actions import ACTIONS, Context
from tamiyo.host.actions.reinitialize import dormant_units
from tamiyo.host.training import TrainingRun
from tamiyo.policy import dosage
from tamiyo.policy.prescription import prescribe
from tamiyo.policy.proposal import Proposal, to_decision

BEFORE, AFTER, NODES = 12, 12, 9
SPEC = HostSpec("digits", (20, 3, 16, 12), "plain", "relu", "sgd", 0.05, seed=7)


class Both:
    """One host in a cohort and as a plain module, and what each of them measured."""

    def __init__(self, spec=SPEC):
        self.cohort = Cohort((spec,), steps=BEFORE + AFTER + 9, width=24, dtype=torch.float64)
        self.run = Run(spec, BEFORE + AFTER + 9, torch.float64)
        self.layers = self.run.record().layers()
        for _ in range(BEFORE):
            self.cohort.train()
            self.run.train()
        keeper = SnapshotKeeper(self.cohort, every=1)
        self.clinic = Clinic(self.cohort, keeper, NODES, np.random.default_rng(0))
        self.measure()

    def measure(self):
        meter = StepMeter(self.cohort.layout.rows, self.cohort.device)
        self.cohort.train(meter)
        reading = measure(self.cohort, meter, NODES)
        self.clinic.activity, self.clinic.update_ratio = activity(meter), reading["update_ratio"]
        _, self.sample = self.run.sample(self.layers)

    def state(self):
        step = self.run.steps
        kinds = [list(ACTIONS)] * len(self.layers)
        topology = self.layers.topology("r", kinds, list(ACTIONS))
        signals = SignalBatch.from_signals(
            HealthSignal(
                layer_id=layer,
                epoch=0,
                step=step,
                timestamp=float(step),
                **{name: column[layer].item() for name, column in self.sample.columns.items()},
            )
            for layer in range(len(topology))
        )
        batch = SignalBatch(signals.columns, None, topology, ())
        return ModelGraphBuilder().build_model_graph(batch)

    def decide(self, adaptation, target):
        return to_decision(Proposal(adaptation, target, "test"), self.state(), "test", "1", 10)

    def apply_live(self, decision):
        context = Context(
            TrainingRun(self.run.model, self.run.optimizer), self.layers, self.run.activity
        )
        action = ACTIONS[decision.adaptation]
        assert set(decision.parameters) <= set(action.rules)
        checked = {
            name: rule.check(name, decision.parameters.get(name))
            for name, rule in action.rules.items()
        }
        action.apply(context, decision.target, checked)

    def adapt(self, adaptation, node):
        """On both sides; returns the live decision's parameters."""
        decision = self.decide(adaptation, () if node < 0 else (node,))
        self.clinic.apply(0, node, adaptation)
        self.apply_live(decision)
        return decision.parameters

    def row(self, layer):
        return int(self.cohort.layout.row_of[0, layer])

    def linear(self, layer):
        return self.run.model.layers[layer]

    def go_on(self):
        batched = [self.cohort.train().item() for _ in range(AFTER)]
        return np.array(batched), np.array([self.run.train() for _ in range(AFTER)])


@pytest.fixture
def both():
    return Both()


@pytest.mark.parametrize("speed", [1e-4, 0.04, 1.0, 60.0])
@pytest.mark.parametrize("node", [-1, 0, 4])
def test_learning_rates_are_scaled_alike(both, node, speed):
    # A wrong rate, of the layer or of the run, that one reading has seen.
    rows = slice(None) if node < 0 else [both.row(node // 2)]
    both.cohort.learning_rate[rows] *= speed
    if node < 0:
        both.run.optimizer.param_groups[0]["lr"] *= speed
    else:
        chosen = list(both.linear(node // 2).parameters())
        others = [p for p in both.run.model.parameters() if all(p is not one for one in chosen)]
        group = both.run.optimizer.param_groups[0]
        group["params"] = others
        both.run.optimizer.add_param_group({"params": chosen, "lr": group["lr"] * speed})
    both.measure()
    before = both.cohort.learning_rate.clone(), both.cohort.rate_factor.clone()
    parameters = both.adapt(AdaptationType.SCALE_LEARNING_RATE, node)
    factors = both.cohort.learning_rate / before[0] * both.cohort.rate_factor / before[1]
    row = both.row(max(node, 0) // 2)
    assert factors[row].item() == pytest.approx(parameters["factor"])
    batched, live = both.go_on()
    np.testing.assert_allclose(batched, live, rtol=1e-7)


@pytest.mark.parametrize("node", [0, 2, 4])
def test_as_many_units_are_added(both, node):
    width = int(both.cohort.units[both.row(node // 2)].sum())
    parameters = both.adapt(AdaptationType.WIDEN, node)
    added = int(both.cohort.units[both.row(node // 2)].sum()) - width
    if width + parameters["units"] <= 24:
        assert added == parameters["units"] == len(both.linear(node // 2).weight) - width
    assert both.linear(node // 2).weight.shape[0] == width + parameters["units"]


def test_a_bottleneck_grows_to_the_typical_width(both):
    # Of 20, 3, 16 and 12 units the lower median is 12.
    assert both.adapt(AdaptationType.WIDEN, 2)["units"] == 9
    assert len(both.linear(1).weight) == int(both.cohort.units[both.row(1)].sum()) == 12


def close_units(both, layer, units):
    both.cohort.weights.bias[both.row(layer), units] = -50.0
    with torch.no_grad():
        both.linear(layer).bias[units] = -50.0
    both.measure()


def enlarge(both, layer, factor):
    both.cohort.weights.row(both.row(layer)).mul_(factor)
    with torch.no_grad():
        both.linear(layer).weight.mul_(factor)
    both.measure()


@pytest.mark.parametrize("factor", [1.0, 3.0, 6.0, 30.0])
@pytest.mark.parametrize(
    ("activation", "dead"), [("tanh", []), ("relu", []), ("relu", [2, 5]), ("relu", range(16))]
)
def test_the_same_units_are_drawn_afresh(activation, dead, factor):
    both = Both(replace(SPEC, activation=activation))
    if dead:
        close_units(both, 2, list(dead))
    if factor != 1.0:
        enlarge(both, 2, factor)
    row, linear = both.row(2), both.linear(2)
    old, old_live = both.cohort.weights.row(row).clone(), linear.weight.detach().clone()
    dormant = dormant_units(both.run.activity[4], 0.025)
    # Larger weights may have opened closed units again.
    assert factor != 1.0 or set(dead) <= set(dormant.nonzero()[:, 0].tolist())
    both.adapt(AdaptationType.REINITIALIZE, 4)
    batched = (both.cohort.weights.row(row) != old).any(dim=0)[:16]
    live = (linear.weight != old_live).any(dim=1)
    assert batched.tolist() == live.tolist()
    whole = dosage.is_too_large(float(old_live.norm()), 16) or not dormant.any()
    assert live.tolist() == (torch.ones(16, dtype=torch.bool) if whole else dormant).tolist()


def test_the_factors_in_that_test_lie_on_both_sides_of_the_limit(both):
    norm = float(both.linear(2).weight.detach().norm())
    assert [dosage.is_too_large(norm * factor, 16) for factor in (1.0, 30.0)] == [False, True]


def test_as_many_dead_units_are_removed(both):
    close_units(both, 2, [0, 3, 4, 9, 10, 11, 12, 13, 14, 15])
    both.adapt(AdaptationType.PRUNE, 4)
    assert len(both.linear(2).weight) == int(both.cohort.units[both.row(2)].sum()) == 8
    np.testing.assert_allclose(*both.go_on(), rtol=1e-7)


@pytest.mark.parametrize(
    ("adaptation", "node"),
    [
        (AdaptationType.CLIP_GRADIENTS, -1),
        (AdaptationType.CLIP_GRADIENTS, 4),
        (AdaptationType.CHANGE_ACTIVATION, 4),
        (AdaptationType.CHANGE_ACTIVATION, 5),
    ],
)
def test_what_has_a_fixed_dose_has_the_same_one(both, adaptation, node):
    both.adapt(adaptation, node)
    np.testing.assert_allclose(*both.go_on(), rtol=1e-7)


def test_a_restored_run_goes_on_at_the_same_rate(both):
    both.clinic.keeper.good[:] = True
    rate = both.cohort.learning_rate.clone()
    both.clinic.keeper.observe(torch.tensor([True]))
    both.clinic.apply(0, -1, AdaptationType.RESTORE)
    parameters = both.decide(AdaptationType.RESTORE, ()).parameters
    factor = (both.cohort.learning_rate / rate)[0].item()
    assert parameters == {"learning_rate_factor": pytest.approx(factor)}


def topology_of(shapes):
    nodes = tuple(
        TopologyNode(layer_id=i, name=f"l{i}", type=kind, parameters=9, shape=shape)
        for i, (kind, shape) in enumerate(shapes)
    )
    edges = tuple(TopologyEdge(source=i, target=i + 1) for i in range(len(nodes) - 1))
    return ModelTopology(run="r", nodes=nodes, edges=edges)


@pytest.mark.parametrize(
    ("layer", "units"),
    # Channels 4, 16, 12: the median is 12. Features 48 and 30 of which 48 is not hidden.
    [(0, 8), (1, 4), (2, 3), (3, 12), (4, 8)],
)
def test_widths_are_compared_among_hidden_layers_of_one_kind(make_state, layer, units):
    shapes = [
        ("Conv2d", (4, 8, 8)),
        ("Conv2d", (16, 6, 6)),
        ("Conv2d", (12, 4, 4)),
        ("Linear", (7, 48)),
        ("Linear", (7, 30)),
    ]
    state = make_state(topology_of(shapes))
    assert prescribe(AdaptationType.WIDEN, (layer,), state) == {"units": units}


def test_where_no_width_is_known_the_host_adds_its_usual_share(make_state):
    state = make_state(topology_of([("Linear", ()), ("Embedding", (7, 9)), ("Linear", (4,))]))
    assert prescribe(AdaptationType.WIDEN, (0,), state) == {}
    assert prescribe(AdaptationType.WIDEN, (1,), state) == {}
    assert prescribe(AdaptationType.WIDEN, (0, 2), state) == {"units": 1}


def test_several_layers_take_one_dose(make_state, make_topology):
    readings = {0: {"update_ratio": 1e-6}, 2: {"update_ratio": 1e-4}, 4: {"update_ratio": 1e-3}}
    state = make_state(make_topology(5), readings)
    factor = prescribe(AdaptationType.SCALE_LEARNING_RATE, (0,), state)["factor"]
    assert factor == pytest.approx(100.0)
    factor = prescribe(AdaptationType.SCALE_LEARNING_RATE, (0, 2, 4), state)["factor"]
    assert factor == pytest.approx(0.1)


def test_a_leaky_activation_becomes_another_one(make_state, make_topology):
    state = make_state(make_topology(3, activation="LeakyReLU"))
    assert prescribe(AdaptationType.CHANGE_ACTIVATION, (1,), state) == {"to": "elu"}
    assert prescribe(AdaptationType.CHANGE_ACTIVATION, (0, 1), state) == {"to": "leaky_relu"}


def test_without_topology_there_is_no_dose(make_state):
    with pytest.raises(ValueError, match="topology"):
        prescribe(AdaptationType.WIDEN, (0,), make_state(None, {0: {}}))


@pytest.mark.parametrize("adaptation", ACTIONS)
@pytest.mark.parametrize("target", [(), (0,)])
def test_the_host_accepts_every_prescription(make_state, make_topology, adaptation, target):
    readings = {layer: {"update_ratio": 1e-9} for layer in range(3)}
    parameters = prescribe(adaptation, target, make_state(make_topology(3), readings))
    rules = ACTIONS[adaptation].rules
    assert set(parameters) <= set(rules)
    for name, rule in rules.items():
        rule.check(name, parameters.get(name))
