"""The divergence of whole actions, against its sum over every action there is."""

import torch

from tamiyo.learn.anchor import kl_from_anchor
from tamiyo.learn.graphs import pack
from tamiyo.policy.actions import Action


def enumerated(anchor, learned, graph):
    """Σ p (log p - log π) over all actions of one graph."""
    total = torch.zeros(())
    mask = torch.cat([graph.action_mask, graph.model_action_mask])
    choices = [(False, -1, 0)] + [
        (True, -1 if row == len(graph.x) else row, kind) for row, kind in mask.nonzero().tolist()
    ]
    for adapt, target, kind in choices:
        action = Action(torch.tensor([adapt]), torch.tensor([target]), torch.tensor([kind]))
        p, q = anchor.log_prob(action), learned.log_prob(action)
        total = total + (p.exp() * (p - q)).sum()
    return total


def test_it_is_the_divergence_over_all_actions(make_graphs, make_network):
    one, other = make_network(seed=0), make_network(seed=1)
    for size in (1, 2, 4):
        graph = pack(make_graphs([size], seed=size))
        with torch.no_grad():
            anchor, learned = one(graph)["distribution"], other(graph)["distribution"]
            found = kl_from_anchor(anchor, learned)
            torch.testing.assert_close(found[0], enumerated(anchor, learned, graph))


def test_graphs_of_a_batch_do_not_mix(make_graphs, make_network):
    one, other = make_network(seed=0), make_network(seed=1)
    padded = make_graphs([3, 1, 4])
    with torch.no_grad():
        batch = kl_from_anchor(
            one(pack(padded))["distribution"], other(pack(padded))["distribution"]
        )
        for row in range(3):
            single = pack({name: column[row : row + 1] for name, column in padded.items()})
            alone = kl_from_anchor(one(single)["distribution"], other(single)["distribution"])
            torch.testing.assert_close(batch[row], alone[0])


def test_it_is_zero_for_the_anchor_itself_and_pulls_back(make_graphs, make_network):
    network, anchor = make_network(), make_network()
    graphs = pack(make_graphs([3, 5]))
    with torch.no_grad():
        fixed = anchor(graphs)["distribution"]
    at_home = kl_from_anchor(fixed, network(graphs)["distribution"]).sum()
    torch.testing.assert_close(at_home, torch.zeros(()), atol=1e-6, rtol=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    gaps = []
    for _ in range(20):
        gap = kl_from_anchor(fixed, network(graphs)["distribution"]).sum()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
        gaps.append(float(gap.detach()))
    assert gaps[0] > 0.01
    assert gaps[-1] < 0.5 * gaps[0]


def test_nothing_legal_means_nothing_to_drift(make_graphs, make_network):
    padded = make_graphs([2])
    padded["action_mask"][:], padded["model_action_mask"][:] = False, False
    graphs = pack(padded)
    with torch.no_grad():
        gap = kl_from_anchor(
            make_network(seed=0)(graphs)["distribution"],
            make_network(seed=1)(graphs)["distribution"],
        )
    assert gap.tolist() == [0.0]
