import math
from contextlib import nullcontext

import pytest
import torch

from tamiyo.graph import _pyg
from tamiyo.policy.actions import Action, ActionDistribution
from tamiyo.policy.inputs import GraphInputs


@pytest.fixture
def batch(make_topology, make_state):
    """Two graphs: one with five layers, one with three of which none can do anything."""
    first = make_state(make_topology(5)).graph_data
    second = make_state(make_topology(3, model_actions=())).graph_data
    second.action_mask = torch.zeros_like(second.action_mask)
    return _pyg.Batch.from_data_list([first, second])


@pytest.fixture
def distribution(batch):
    inputs = GraphInputs.from_data(batch)
    generator = torch.Generator().manual_seed(1)
    candidates = inputs.nodes + inputs.graphs
    return ActionDistribution(
        torch.tensor([0.3, 5.0], requires_grad=True),
        torch.randn(candidates, generator=generator, requires_grad=True),
        torch.randn(candidates, 10, generator=generator, requires_grad=True),
        inputs,
    )


def every_action(distribution):
    """All legal actions of the first graph, the second one doing nothing."""
    legal = distribution.inputs.legal
    yield Action(torch.tensor([False, False]), torch.tensor([-1, -1]), torch.tensor([0, 0]))
    for target in (-1, 0, 1, 2, 3, 4):
        row = 8 if target == -1 else target
        for kind in legal[row].nonzero()[:, 0].tolist():
            yield Action(
                torch.tensor([True, False]), torch.tensor([target, -1]), torch.tensor([kind, 0])
            )


@pytest.mark.parametrize("exploration", [0.0, 0.3, 1.0])
def test_probabilities_of_all_legal_actions_sum_to_one(distribution, exploration):
    total = sum(
        distribution.log_prob(action, exploration)[0].exp() for action in every_action(distribution)
    )
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_a_graph_without_legal_actions_never_adapts(distribution):
    assert distribution.can_adapt.tolist() == [True, False]
    assert distribution.adapt_log_prob[1].exp().tolist() == [1, 0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert not distribution.sample(generator, 0.5).adapt[1]


def test_samples_are_legal_and_as_frequent_as_their_probability(distribution):
    generator = torch.Generator().manual_seed(0)
    draws, exploration, counts = 4000, 0.2, {}
    for _ in range(draws):
        action = distribution.sample(generator, exploration)
        key = (bool(action.adapt[0]), int(action.target[0]), int(action.type[0]))
        counts[key] = counts.get(key, 0) + 1
    chi_squared, cells = 0.0, 0
    for action in every_action(distribution):
        key = (bool(action.adapt[0]), int(action.target[0]), int(action.type[0]))
        expected = draws * float(distribution.log_prob(action, exploration)[0].detach().exp())
        chi_squared += (counts.pop(key, 0) - expected) ** 2 / expected
        cells += 1
    assert not counts
    freedom = cells - 1
    assert chi_squared < freedom + 4 * math.sqrt(2 * freedom)


def test_the_log_probability_is_the_sum_of_the_factors(distribution):
    action = Action(torch.tensor([True, False]), torch.tensor([2, -1]), torch.tensor([3, 0]))
    expected = (
        distribution.adapt_log_prob[0, 1]
        + distribution.target_log_prob[2]
        + distribution.type_log_prob[2, 3]
    )
    torch.testing.assert_close(distribution.log_prob(action)[0], expected)


@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_doing_nothing_passes_no_gradient_to_target_and_type(distribution, exploration):
    nothing = Action(torch.tensor([False, False]), torch.tensor([-1, -1]), torch.tensor([0, 0]))
    distribution.log_prob(nothing, exploration).sum().backward()
    assert distribution.adapt_logit.grad[0] != 0
    assert bool((distribution.target_score.grad == 0).all())
    assert bool((distribution.type_score.grad == 0).all())


@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_illegal_choices_get_no_gradient(distribution, exploration):
    legal = distribution.inputs.legal
    for action in every_action(distribution):
        distribution.log_prob(action, exploration).sum().backward(retain_graph=True)
    sum(value.sum() for value in distribution.entropy().values()).backward()
    for score in (distribution.target_score, distribution.type_score, distribution.adapt_logit):
        assert bool(torch.isfinite(score.grad).all())
    assert bool((distribution.type_score.grad[~legal] == 0).all())
    assert bool((distribution.target_score.grad[~legal.any(-1)] == 0).all())


def pause_gradients(how):
    return {"no_grad": torch.no_grad, "inference": torch.inference_mode, "none": nullcontext}[how]()


@pytest.mark.parametrize("how", ["no_grad", "inference", "none"])
def test_what_was_looked_at_without_gradients_has_them_afterwards(batch, how):
    inputs = GraphInputs.from_data(batch)
    scores = [torch.randn(n, requires_grad=True) for n in (2, inputs.nodes + 2)]
    types = torch.randn(inputs.nodes + 2, 10, requires_grad=True)
    distribution = ActionDistribution(*scores, types, inputs)
    action = Action(torch.tensor([True, False]), torch.tensor([2, -1]), torch.tensor([3, 0]))
    with pause_gradients(how):
        distribution.sample(torch.Generator().manual_seed(0), 0.1)
        distribution.mode()
        distribution.log_prob(action, 0.1)
        distribution.entropy()
    looked_at = torch.autograd.grad(
        distribution.log_prob(action, 0.1)[0] + distribution.entropy()["type"].sum(),
        (*scores, types),
    )
    fresh = ActionDistribution(*scores, types, inputs)
    expected = torch.autograd.grad(
        fresh.log_prob(action, 0.1)[0] + fresh.entropy()["type"].sum(), (*scores, types)
    )
    for gradient, reference in zip(looked_at, expected, strict=True):
        assert torch.equal(gradient, reference)
        assert bool((gradient != 0).any())


def test_exploration_keeps_the_gradient_of_unlikely_choices(distribution):
    with torch.no_grad():
        distribution.target_score[0] -= 10.0
    action = Action(torch.tensor([True, False]), torch.tensor([0, -1]), torch.tensor([3, 0]))
    distribution.log_prob(action, 0.0).sum().backward()
    assert abs(distribution.target_score.grad[0]) > 0.5


def test_entropies_are_those_of_a_uniform_choice_at_most(batch):
    inputs = GraphInputs.from_data(batch)
    flat = ActionDistribution(
        torch.zeros(2), torch.zeros(inputs.nodes + 2), torch.zeros(inputs.nodes + 2, 10), inputs
    )
    entropy = flat.entropy()
    torch.testing.assert_close(entropy["adapt"], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(entropy["target"], torch.tensor([1.0, 0.0]))
    # Two of the six candidates have a single legal type, so no choice.
    torch.testing.assert_close(entropy["type"], torch.tensor([4 / 6, 0.0]))


def test_the_mode_is_the_likeliest_target_then_type(distribution):
    with torch.no_grad():
        distribution.target_score[3] = 9.0
    action = distribution.mode()
    assert action.adapt.tolist() == [True, False]
    assert action.target.tolist() == [3, -1]
    assert bool(distribution.inputs.legal[3, action.type[0]])
