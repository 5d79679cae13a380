"""Adaptations of batched hosts have the effects of the live host's actions."""

import numpy as np
import pytest
import torch

from plain_hosts import Run
from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.adaptations import OFFERED, Clinic
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import HostSpec
from tamiyo.envs.training.measurements import activity, measure
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.snapshots import SnapshotKeeper
from tamiyo.graph.schema import ACTIONS as COLUMNS
from tamiyo.host.actions import ACTIONS, Context
from tamiyo.host.training import TrainingRun

BEFORE, AFTER = 30, 30
NODES = 9
HOST = 1


def specs(optimizer):
    rate = 0.05 if optimizer == "sgd" else 2e-3
    return (
        HostSpec("digits", (12, 12, 12, 12), "residual", "tanh", optimizer, rate, seed=8),
        HostSpec("digits", (20, 14, 16), "plain", "relu", optimizer, rate, seed=7),
        HostSpec("wine", (9,), "plain", "relu", optimizer, rate, seed=9),
    )


class Pair:
    """The same host in a cohort and in a plain loop, after a few steps."""

    def __init__(self, optimizer="sgd"):
        self.cohort = Cohort(
            specs(optimizer), steps=BEFORE + AFTER + 1, width=24, dtype=torch.float64
        )
        self.spec = self.cohort.specs[HOST]
        self.run = Run(self.spec, BEFORE + AFTER + 1, torch.float64)
        layers = self.run.record().layers()
        for _ in range(BEFORE - 1):
            self.cohort.train()
            self.run.train()
        self.layers = layers
        self.keeper = SnapshotKeeper(self.cohort, every=1)
        self.clinic = Clinic(self.cohort, self.keeper, NODES, np.random.default_rng(0))
        self.measure()

    def measure(self):
        meter = StepMeter(self.cohort.layout.rows, self.cohort.device)
        self.cohort.train(meter)
        self.run.sample(self.layers)
        self.clinic.activity = activity(meter)
        self.clinic.update_ratio = measure(self.cohort, meter, NODES)["update_ratio"]

    def adapt_live(self, adaptation, target, **parameters):
        context = Context(
            TrainingRun(self.run.model, self.run.optimizer), self.layers, self.run.activity
        )
        action = ACTIONS[adaptation]
        names = {*action.rules, *parameters}
        checked = {n: action.rules[n].check(n, parameters.get(n)) for n in names}
        action.apply(context, target, checked)

    def go_on(self):
        """Losses of both for the remaining steps."""
        batched = [self.cohort.train()[HOST].item() for _ in range(AFTER)]
        return np.array(batched), np.array([self.run.train() for _ in range(AFTER)])

    def row(self, layer):
        return int(self.cohort.layout.row_of[HOST, layer])


@pytest.fixture(params=["sgd", "adam"])
def pair(request):
    return Pair(request.param)


def close_units(pair, layer, units):
    """Biases so low that the units are dead, on both sides."""
    pair.cohort.weights.bias[pair.row(layer), units] = -50.0
    with torch.no_grad():
        pair.run.model.linears[layer].bias[units] = -50.0
    pair.measure()


@pytest.mark.parametrize("node", [-1, 2, 6])
def test_learning_rate(pair, node):
    rate = pair.cohort.learning_rate[pair.row(0)].item()
    pair.clinic.apply(HOST, node, AdaptationType.SCALE_LEARNING_RATE)
    factor = pair.cohort.learning_rate[pair.row(0)].item() / rate
    if node >= 0:
        factor = pair.cohort.rate_factor[pair.row(node // 2)].item()
    assert factor != 1.0
    target = () if node < 0 else (node,)
    pair.adapt_live(AdaptationType.SCALE_LEARNING_RATE, target, factor=factor)
    np.testing.assert_allclose(*pair.go_on(), rtol=1e-8)


@pytest.mark.parametrize("node", [-1, 4])
def test_clipping(pair, node):
    pair.clinic.apply(HOST, node, AdaptationType.CLIP_GRADIENTS)
    pair.adapt_live(AdaptationType.CLIP_GRADIENTS, () if node < 0 else (node,))
    batched, plain = pair.go_on()
    np.testing.assert_allclose(batched, plain, rtol=1e-8)
    untouched = Pair(pair.spec.optimizer)
    if pair.spec.optimizer == "sgd":
        assert not np.allclose(batched, untouched.go_on()[0], rtol=1e-3)


@pytest.mark.parametrize("node", [2, 3])
def test_change_of_activation(pair, node):
    pair.clinic.apply(HOST, node, AdaptationType.CHANGE_ACTIVATION)
    pair.adapt_live(AdaptationType.CHANGE_ACTIVATION, (node,), to="leaky_relu")
    np.testing.assert_allclose(*pair.go_on(), rtol=1e-8)


def test_pruning(pair):
    close_units(pair, 1, [0, 3, 4, 9])
    pair.clinic.apply(HOST, 2, AdaptationType.PRUNE)
    pair.adapt_live(AdaptationType.PRUNE, (2,))
    left = int(pair.cohort.units[pair.row(1)].sum())
    assert left == len(pair.run.model.linears[1].weight)
    assert left < 14
    np.testing.assert_allclose(*pair.go_on(), rtol=1e-8)


@pytest.mark.parametrize("dead", [[2, 5], list(range(14))])
def test_reinitialization_recycles_the_units_that_the_live_host_recycles(pair, dead):
    close_units(pair, 1, dead)
    row, reader = pair.row(1), pair.row(2)
    before = pair.cohort.weights.map(torch.clone)
    linear, following = pair.run.model.linears[1], pair.run.model.linears[2]
    old, old_reader = linear.weight.detach().clone(), following.weight.detach().clone()
    pair.clinic.apply(HOST, 2, AdaptationType.REINITIALIZE)
    pair.adapt_live(AdaptationType.REINITIALIZE, (2,), scope="dormant")
    weights = pair.cohort.weights
    mine = (weights.row(row) != before.row(row)).any(dim=0)[:14]
    torch.testing.assert_close(mine, (linear.weight != old).any(dim=1))
    assert mine.nonzero()[:, 0].tolist() == dead
    assert (weights.bias[row, dead] == 0).all()
    live_zero = (following.weight == 0).all(dim=0)
    torch.testing.assert_close((weights.row(reader)[:14, :16] == 0).all(dim=1), live_zero)
    if len(dead) == 14:
        assert (following.weight != old_reader).all()
        assert (weights.row(reader)[:14, :16] != before.row(reader)[:14, :16]).all()
    bound = 1 / np.sqrt(20)
    fresh = weights.row(row)[:20, dead]
    assert fresh.abs().max() <= bound
    assert fresh.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.2)
    moment = pair.cohort.optimizer.first.row(row)
    assert not moment[:, dead].any()
    assert np.isfinite(pair.go_on()[0]).all()


def test_a_layer_without_dormant_units_is_drawn_afresh(pair):
    pair.clinic.activity = torch.ones_like(pair.clinic.activity)
    before = pair.cohort.weights.row(pair.row(1)).clone()
    pair.clinic.apply(HOST, 2, AdaptationType.REINITIALIZE)
    assert (pair.cohort.weights.row(pair.row(1))[:20, :14] != before[:20, :14]).all()


def test_widening_preserves_the_function_and_adds_capacity(pair):
    x, labels = pair.cohort.pool.held_out(40)
    before, _ = pair.cohort.evaluate(x, labels)
    pair.cohort.units[pair.row(1), :10].sum()
    pair.clinic.apply(HOST, 2, AdaptationType.WIDEN)
    after, _ = pair.cohort.evaluate(x, labels)
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)
    assert pair.cohort.units[pair.row(1)].sum() == 14 + round(0.25 * 14)
    new = pair.cohort.units[pair.row(1)].clone()
    new[:14] = False
    assert not pair.cohort.weights.row(pair.row(2))[new].any()
    pair.go_on()
    assert pair.cohort.weights.row(pair.row(2))[new][:, :16].all()
    assert not pair.cohort.weights.row(pair.row(1))[:, ~pair.cohort.units[pair.row(1)]].any()


def test_restoring_goes_back_to_a_proven_state_at_a_lower_rate(pair):
    x, labels = pair.cohort.pool.held_out(40)
    well = torch.ones(3, dtype=torch.bool)
    pair.keeper.observe(well)
    good, _ = pair.cohort.evaluate(x, labels)
    assert not pair.keeper.good.any()
    for _ in range(3):
        pair.cohort.train()
    pair.keeper.observe(well)
    assert pair.keeper.good.all()
    pair.cohort.weights.row(pair.row(1)).fill_(torch.nan)
    rate = pair.cohort.learning_rate.clone()
    pair.clinic.apply(HOST, -1, AdaptationType.RESTORE)
    restored, _ = pair.cohort.evaluate(x, labels)
    assert restored[HOST] == good[HOST]
    assert pair.cohort.learning_rate[pair.row(0)] == 0.5 * rate[HOST]
    assert pair.cohort.learning_rate[0] == rate[0]


def test_an_interval_with_trouble_never_becomes_a_snapshot(pair):
    well = torch.ones(3, dtype=torch.bool)
    ill = torch.tensor([True, False, True])
    pair.keeper.observe(well)
    pair.keeper.observe(ill)
    assert pair.keeper.good.tolist() == ill.tolist()
    pair.keeper.observe(well)
    pair.keeper.observe(well)
    assert pair.keeper.good.all()


def test_other_hosts_do_not_notice(pair):
    untouched = Pair(pair.spec.optimizer)
    for node, adaptation in (
        (2, AdaptationType.WIDEN),
        (4, AdaptationType.REINITIALIZE),
        (0, AdaptationType.CHANGE_ACTIVATION),
        (-1, AdaptationType.CLIP_GRADIENTS),
        (-1, AdaptationType.SCALE_LEARNING_RATE),
    ):
        pair.clinic.apply(HOST, node, adaptation)
    for _ in range(AFTER):
        mine, theirs = pair.cohort.train(), untouched.cohort.train()
        assert mine[0] == theirs[0]
        assert mine[2] == theirs[2]


def test_masks_follow_the_state(pair):
    layers, model = pair.clinic.masks()
    column = {adaptation: COLUMNS.index(adaptation) for adaptation in OFFERED}
    assert not model[:, column[AdaptationType.RESTORE]].any()
    pair.keeper.good[:] = True
    assert pair.clinic.masks()[1][:, column[AdaptationType.RESTORE]].all()
    # Sums are read elsewhere: units of the residual host cannot be touched.
    for adaptation in (AdaptationType.WIDEN, AdaptationType.PRUNE, AdaptationType.REINITIALIZE):
        assert not layers[0, :, column[adaptation]].any()
    assert layers[HOST, 0, column[AdaptationType.WIDEN]]
    pair.cohort.units[pair.row(0)] = True
    assert not pair.clinic.masks()[0][HOST, 0, column[AdaptationType.WIDEN]]
    # The last layer has no units to change, and what is padded has nothing at all.
    assert not layers[HOST, 6, column[AdaptationType.WIDEN]]
    assert not layers[HOST, 7:].any()


def test_what_is_not_offered_is_an_error(pair):
    with pytest.raises(ValueError, match="not offered"):
        pair.clinic.apply(HOST, 2, AdaptationType.ADD_SEED)
