"""Hosts are networks as described, each number always the same one, and of every kind."""

from itertools import product

import pytest
import torch
from torch import nn

from tamiyo.bench.transfer.hosts import ACTIVATIONS, DATA, LiveHost, draw_host
from tamiyo.envs.training.data import HELD_OUT_DATA


def test_the_first_hosts_are_of_every_kind():
    hosts = [draw_host(number) for number in range(48)]
    assert {host.data for host in hosts} == set(DATA) > set(HELD_OUT_DATA)
    assert {host.activation for host in hosts} == set(ACTIVATIONS)
    assert {host.optimizer_name for host in hosts} == {"sgd", "adam", "adamw"}
    assert {host.family for host in hosts} == {"mlp", "cnn"}
    assert {host.batch_size for host in hosts} == {32, 64}
    assert {host.depth for host in hosts if host.family == "mlp"} == {1, 2, 3, 4, 5, 6}
    for varied in ("norm", "cosine", "dropout"):
        assert len({getattr(host, varied) for host in hosts}) == 2
    assert len(set(hosts)) == len(hosts)


def test_a_number_is_always_the_same_host():
    assert draw_host(7) == draw_host(7) != draw_host(8)


@pytest.mark.parametrize("number", range(12))
def test_every_host_trains(number):
    host = draw_host(number)
    task = host.task(2)
    model = task.make_model()
    optimizer = task.make_optimizer(model)
    scheduler = host.scheduler(optimizer, 2)
    assert (scheduler is not None) == host.cosine
    inputs, labels = next(task.batches(0))
    assert len(labels) == host.batch_size
    # A bias before a batch normalisation has no effect, and so no gradient.
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    before = [weight.clone() for weight in weights]
    nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    assert all((old != new).any() for old, new in zip(before, weights, strict=True))
    loss, accuracy = task.evaluate(model)
    assert loss > 0
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize(
    ("family", "norm", "dropout"), list(product(("mlp", "cnn"), (False, True), (0.0, 0.2)))
)
def test_layers_are_those_of_the_description(family, norm, dropout):
    host = LiveHost("digits", 8, 2, "tanh", family, norm, dropout)
    kinds = [type(module) for module in host.build().children()]
    own, batch_norm = (
        (nn.Linear, nn.BatchNorm1d) if family == "mlp" else (nn.Conv2d, nn.BatchNorm2d)
    )
    assert kinds.count(nn.Tanh) == 2
    assert kinds.count(own) == (3 if family == "mlp" else 2)
    assert kinds.count(batch_norm) == (2 if norm else 0)
    assert kinds.count(nn.Dropout) == (2 if dropout else 0)
    assert kinds[-1] is nn.Linear


@pytest.mark.parametrize(
    ("name", "kind", "decay"),
    [("sgd", torch.optim.SGD, 0), ("adam", torch.optim.Adam, 0), ("adamw", torch.optim.AdamW, 0.1)],
)
def test_optimisers_have_their_settings(name, kind, decay):
    host = LiveHost("wine", 8, 1, optimizer_name=name, learning_rate=0.01, weight_decay=decay)
    optimizer = host.optimizer(host.build())
    [group] = optimizer.param_groups
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"]) == (0.01, decay)


def test_a_cosine_ends_at_zero():
    host = LiveHost("wine", 8, 1, learning_rate=0.01, cosine=True)
    optimizer = host.optimizer(host.build())
    scheduler = host.scheduler(optimizer, 10)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
