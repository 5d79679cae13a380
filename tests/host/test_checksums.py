"""Checksums are equal for equal runs, and for no others."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tamiyo.host import TopologyRecorder, TrainingRun
from tamiyo.host.checksums import _CHUNK, _sums, run_checksum, structure_checksum

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.int32, torch.bool)


def trained(model, optimizer=torch.optim.AdamW, steps=2):
    optimizer = optimizer(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4, 6)).square().sum().backward()
        optimizer.step()
    return TrainingRun(model, optimizer)


def net(width=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def layers_of(model):
    recorder = TopologyRecorder(model)
    recorder.attach()
    model(torch.ones(4, 6))
    recorder.detach()
    return recorder.layers()


def test_equal_runs_have_equal_checksums():
    assert run_checksum(trained(net())) == run_checksum(trained(net()))
    assert run_checksum(trained(net())) != run_checksum(trained(net(), steps=3))


@settings(max_examples=60)
@given(st.data())
def test_any_other_bit_shows(data):
    run = trained(net())
    before = run_checksum(run)
    tensors = [*run.model.parameters()]
    for state in run.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    tensor = data.draw(st.sampled_from(tensors))
    place = data.draw(st.integers(0, tensor.numel() - 1))
    bits = tensor.detach().reshape(-1).view(torch.int32)
    bits[place] ^= 1 << data.draw(st.integers(0, 30))
    assert run_checksum(run) != before


@settings(max_examples=30)
@given(st.permutations(range(6)))
def test_an_other_order_shows(order):
    values = torch.arange(6.0) + 0.5
    same = torch.equal(torch.stack(_sums(values)), torch.stack(_sums(values[order])))
    assert same == (list(order) == list(range(6)))


def test_learning_rates_and_parameter_groups_count():
    run, other = trained(net()), trained(net())
    other.optimizer.param_groups[0]["lr"] = 2e-2
    assert run_checksum(run) != run_checksum(other)


def test_buffers_do_not_count():
    run = trained(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)))
    before = run_checksum(run)
    run.model[1].running_mean.add_(1)
    assert run_checksum(run) == before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kind_of_number_is_summed(dtype):
    values = torch.arange(7).to(dtype)
    plain, weighted = _sums(values)
    again = _sums(values.clone())
    assert (plain, weighted) == again
    assert _sums(values.flip(0))[1] != weighted
    assert _sums(torch.zeros(0, dtype=dtype)) == (torch.tensor(0), torch.tensor(0))


def test_sums_are_those_of_exact_integers():
    words = torch.randint(-(2**31), 2**31, (_CHUNK + 17,), dtype=torch.int64).to(torch.int32)
    plain, weighted = _sums(words)
    exact = [int(word) for word in words.tolist()]
    assert int(plain) % 2**64 == sum(exact) % 2**64
    places = sum(word * place for place, word in enumerate(exact, 1))
    assert int(weighted) % 2**64 == places % 2**64


def test_layouts_do_not_matter():
    values = torch.randn(4, 3, 5, 5)
    strided = values.to(memory_format=torch.channels_last)
    assert _sums(values) == _sums(strided)


def test_a_structure_is_known_by_its_layers_flow_and_optimizer():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    checksum = structure_checksum(layers_of(model), optimizer)
    twin = copy.deepcopy(model)
    assert structure_checksum(layers_of(twin), torch.optim.SGD(twin.parameters(), 0.1)) == checksum
    assert structure_checksum(layers_of(model), torch.optim.Adam(model.parameters())) != checksum
    assert structure_checksum(TopologyRecorder(model).layers(), optimizer) != checksum
    wide = net(6)
    assert structure_checksum(layers_of(wide), torch.optim.SGD(wide.parameters(), 0.1)) != checksum
