"""References: the surrogate's derivative by hand, and the textbook policy gradient."""

import math

import pytest
import torch

from tamiyo.learn.graphs import pack
from tamiyo.learn.head_losses import weighted_mean
from tamiyo.learn.losses import Minibatch, losses, policy_loss
from tamiyo.learn.segments import TARGETS
from tamiyo.policy.actions import Action, ActionDistribution
from tamiyo.policy.inputs import GraphInputs

SIZES = [4, 3, 5, 2, 4, 3]


@pytest.fixture
def make_batch(make_graphs):
    """A minibatch of actions drawn from a network, with random advantages."""

    def make(network, *, action=None, **columns):
        padded = make_graphs(SIZES, isolated=True)
        with torch.no_grad():
            distribution = network(pack(padded))["distribution"]
            if action is None:
                action = distribution.sample(torch.Generator().manual_seed(2), 0.9)
            log_prob = distribution.log_prob(action)
        generator = torch.Generator().manual_seed(3)
        count = len(SIZES)
        defaults = {
            "prox_log_prob": log_prob,
            "rho": torch.ones(count),
            "advantages": torch.randn(count, generator=generator),
            "returns": torch.randn(count, generator=generator),
            "weights": torch.ones(count),
            "on_policy": torch.ones(count, dtype=torch.bool),
            "targets": torch.full((count, len(TARGETS)), torch.nan),
        }
        return Minibatch(graphs=pack(padded), action=action, **defaults | columns)

    return make


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return {
        name: parameter.grad.clone() if parameter.grad is not None else None
        for name, parameter in network.named_parameters()
    }


def test_the_gradient_at_the_proximal_policy_is_the_weighted_policy_gradient(
    make_network, make_batch
):
    network = make_network()
    rho, weights = torch.rand(len(SIZES)), torch.rand(len(SIZES))
    batch = make_batch(network, rho=rho, weights=weights)

    def log_prob():
        return network(batch.graphs)["distribution"].log_prob(batch.action)

    surrogate = policy_loss(
        log_prob(), batch.prox_log_prob, batch.rho, batch.advantages, batch.weights, 0.2
    )
    found = gradients(network, surrogate)
    textbook = -(weights * rho * batch.advantages * log_prob()).sum() / weights.sum()
    expected = gradients(network, textbook)
    assert any(gradient is not None and gradient.abs().max() > 0.01 for gradient in found.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("advantage", "ratio", "moves"),
    [(1.0, 1.3, False), (1.0, 0.7, True), (-1.0, 0.7, False), (-1.0, 1.3, True), (1.0, 1.1, True)],
)
def test_clipping_stops_what_has_moved_far_enough(advantage, ratio, moves):
    log_prob = torch.tensor([math.log(ratio)], requires_grad=True)
    one = torch.ones(1)
    policy_loss(log_prob, torch.zeros(1), one, advantage * one, one, 0.2).backward()
    expected = -advantage * ratio if moves else 0.0
    assert log_prob.grad.item() == pytest.approx(expected, rel=1e-5)


def test_doing_nothing_gives_the_target_and_type_heads_no_gradient(
    make_network, make_batch, make_config
):
    network, count = make_network(), len(SIZES)
    nothing = Action(
        torch.zeros(count, dtype=torch.bool), torch.full((count,), -1), torch.zeros(count).long()
    )
    batch = make_batch(network, action=nothing)
    config = make_config(entropy_bonus_coeff=0.0)
    found = gradients(network, losses(network(batch.graphs), batch, config, 0.1).total)
    for name, gradient in found.items():
        if name.startswith("heads.candidate"):
            assert gradient is None or bool((gradient == 0).all()), name
    assert found["heads.graph.adapt.last.weight"].abs().max() > 0


@pytest.mark.parametrize("head", ["target_score", "type_score"])
@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_a_gap_of_ten_in_the_logits_leaves_a_gradient(make_graphs, head, exploration):
    """An unlikely action that turned out well must still be pulled up."""
    padded = make_graphs([4])
    padded["action_mask"][:] = True
    inputs = GraphInputs.from_data(pack(padded))
    scores = {"target_score": torch.zeros(5), "type_score": torch.zeros(5, 10)}
    scores[head][(0,) if head == "target_score" else (0, 4)] = -10.0
    scores = {name: score.requires_grad_() for name, score in scores.items()}
    distribution = ActionDistribution(torch.zeros(1), inputs=inputs, **scores)
    action = Action(torch.tensor([True]), torch.tensor([0]), torch.tensor([4]))
    log_prob = distribution.log_prob(action, exploration)
    one = torch.ones(1)
    policy_loss(log_prob, log_prob.detach(), one, one, one, 0.2).backward()
    gradient = scores[head].grad[(0,) if head == "target_score" else (0, 4)]
    choices = 5 if head == "target_score" else 10
    probability = math.exp(-10) / (math.exp(-10) + choices - 1)
    mixed = (1 - exploration) * probability + exploration / choices
    expected = (1 - exploration) * probability * (1 - probability) / mixed
    assert -gradient.item() == pytest.approx(expected, rel=1e-3)
    assert expected > (0.99 if exploration == 0 else 1e-4)


def test_illegal_and_padded_choices_have_no_probability_and_no_gradient(
    make_network, make_batch, make_config
):
    network = make_network()
    batch = make_batch(network)
    batch.graphs.action_mask[1] = False
    outputs = network(batch.graphs)
    distribution = outputs["distribution"]
    distribution.target_score.retain_grad()
    distribution.type_score.retain_grad()
    somewhere_else = Action(
        torch.tensor([True] * len(SIZES)), torch.zeros(len(SIZES)).long(), torch.full((6,), 4)
    )
    chosen = make_batch(network, action=somewhere_else)
    losses(outputs, chosen, make_config(), 0.1).total.backward()
    legal = distribution.inputs.legal
    assert outputs["layer_priority"][1] == 0
    assert distribution.target_score.grad[1] == 0
    assert bool((distribution.type_score.grad[~legal] == 0).all())
    assert distribution.target_score.grad.abs().max() > 0


def test_permuting_the_nodes_changes_no_loss(make_network, make_graphs, make_batch, make_config):
    network = make_network()
    batch = make_batch(network, targets=torch.rand(len(SIZES), len(TARGETS)))
    order = torch.cat(
        [
            torch.randperm(size, generator=torch.Generator().manual_seed(size)) + sum(SIZES[:row])
            for row, size in enumerate(SIZES)
        ]
    )
    place = order.argsort()
    graphs = batch.graphs
    permuted = type(graphs)(
        x=graphs.x[order],
        x_measured=graphs.x_measured[order],
        layer_type=graphs.layer_type[order],
        edge_index=place[graphs.edge_index],
        edge_attr=graphs.edge_attr,
        edge_measured=graphs.edge_measured,
        global_features=graphs.global_features,
        global_measured=graphs.global_measured,
        action_mask=graphs.action_mask[order],
        model_action_mask=graphs.model_action_mask,
        batch=graphs.batch,
    )
    starts = torch.tensor(SIZES).cumsum(0) - torch.tensor(SIZES)
    target = batch.action.target
    moved = torch.where(target < 0, target, place[(starts + target).clamp_min(0)] - starts)
    action = Action(batch.action.adapt, moved, batch.action.type)
    columns = {
        name: getattr(batch, name)
        for name in ("prox_log_prob", "rho", "advantages", "returns", "weights", "on_policy")
    }
    other = Minibatch(graphs=permuted, action=action, targets=batch.targets, **columns)
    first = losses(network(batch.graphs, uncertainty=True), batch, make_config(), 0.1)
    second = losses(network(permuted, uncertainty=True), other, make_config(), 0.1)
    for name, part in first.parts.items():
        torch.testing.assert_close(second.parts[name], part, rtol=1e-4, atol=1e-5, msg=name)


def test_the_value_is_trained_by_every_transition_and_the_policy_only_by_sampled_ones(
    make_network, make_batch, make_config
):
    network = make_network()
    batch = make_batch(network, on_policy=torch.zeros(len(SIZES), dtype=torch.bool))
    config = make_config(entropy_bonus_coeff=0.0)
    found = losses(network(batch.graphs), batch, config)
    assert found.parts["policy"] == 0
    assert found.parts["value"] > 0
    gradient = gradients(network, found.total)
    assert gradient["heads.graph.adapt.last.weight"].abs().max() == 0
    assert gradient["heads.graph.value.last.weight"].abs().max() > 0


def test_the_value_loss_is_hubers(make_network, make_batch, make_config):
    network = make_network()
    weights = torch.rand(len(SIZES))
    batch = make_batch(network, returns=torch.tensor([0.1, 5.0, -4, 0, 1, 2]), weights=weights)
    outputs = network(batch.graphs)
    error = (outputs["value_estimate"] - batch.returns).abs()
    huber = torch.where(error < 1, error.square() / 2, error - 0.5)
    expected = (weights * huber).sum() / weights.sum()
    torch.testing.assert_close(losses(outputs, batch, make_config()).parts["value"], expected)


@pytest.mark.parametrize(
    ("name", "loss", "head"),
    [
        ("safety", "safety", "safety"),
        ("risk", "safety", "risk"),
        ("urgency", "urgency", "urgency"),
        ("health_trend", "temporal", "temporal"),
        ("urgency_trend", "temporal", "temporal"),
    ],
)
def test_each_head_learns_from_its_own_known_targets(
    make_network, make_batch, make_config, name, loss, head
):
    network = make_network()
    targets = torch.full((len(SIZES), len(TARGETS)), torch.nan)
    targets[:2, TARGETS.index(name)] = torch.tensor([1.0, 0.0])
    batch = make_batch(network, targets=targets)
    plain = losses(network(batch.graphs), make_batch(network), make_config())
    assert plain.parts[loss].isnan()
    found = losses(network(batch.graphs), batch, make_config())
    assert found.parts[loss] > 0
    gradient = gradients(network, found.total)
    assert gradient[f"heads.graph.{head}.last.weight"].abs().max() > 0
    off = make_config(safety_loss_weight=0.0, urgency_loss_coeff=0.0, temporal_loss_coeff=0.0)
    silent = losses(network(batch.graphs), batch, off)
    assert silent.parts[loss].isnan()
    assert torch.equal(silent.total, plain.total)


def test_an_unsafe_outcome_called_safe_costs_the_configured_factor(
    make_network, make_batch, make_config
):
    network = make_network()

    def loss(factor):
        targets = torch.full((len(SIZES), len(TARGETS)), torch.nan)
        targets[:2, TARGETS.index("safety")] = torch.tensor([1.0, 0.0])
        batch = make_batch(network, targets=targets)
        outputs = network(batch.graphs)
        score = outputs["safety_score"][:2]
        expected = -(score[0].log() + factor * (1 - score[1]).log()) / (1 + factor)
        found = losses(outputs, batch, make_config(safety_penalty_weight=factor))
        torch.testing.assert_close(found.parts["safety"], expected)
        return found.parts["safety"]

    assert loss(1.0) != loss(3.0)


def test_excess_uncertainty_is_pushed_down(make_network, make_batch, make_config):
    network = make_network(attention_dropout=0.5)
    batch = make_batch(network)
    config = make_config(epistemic_threshold=0.05, uncertainty_regularization=1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    before = None
    for _ in range(20):
        found = losses(network(batch.graphs, uncertainty=True), batch, config).parts["uncertainty"]
        before = found if before is None else before
        outputs = network(batch.graphs, uncertainty=True)
        optimizer.zero_grad()
        losses(outputs, batch, config).total.backward()
        optimizer.step()
    assert found < 0.8 * before
    assert all(bool(torch.isfinite(value).all()) for value in network.parameters())


def test_a_weighted_mean_without_weight_is_zero():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = weighted_mean(values, torch.zeros(2))
    mean.backward()
    assert mean == 0
    assert values.grad.tolist() == [0, 0]
