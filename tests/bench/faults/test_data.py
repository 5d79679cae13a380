"""Data are standardised, stratified, on the CPU, and the same every time."""

import random

import numpy as np
import pytest
import torch

from tamiyo.bench.faults import DATA_SOURCES
from tamiyo.bench.faults import data as module
from tamiyo.bench.faults.data import MissingExtraError, dataset

from .conftest import needs_mnist1d

NAMES = [
    pytest.param(name, marks=needs_mnist1d if name == "mnist1d" else ()) for name in DATA_SOURCES
]


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_standardised_and_split(name):
    found = dataset(name)
    (train, labels), (held_out, their) = found.train, found.held_out
    assert train.dtype == held_out.dtype == torch.float32
    assert labels.dtype == their.dtype == torch.int64
    assert tuple(train.shape[1:]) == tuple(held_out.shape[1:]) == DATA_SOURCES[name].shape
    assert len(their) / (len(labels) + len(their)) == pytest.approx(0.3, abs=0.002)
    flat = train.flatten(1)
    assert flat.mean(0).abs().max() < 1e-4
    deviation = flat.std(0, correction=0)
    assert ((deviation - 1).abs() < 1e-3).logical_or(deviation == 0).all()
    assert set(labels.tolist()) == set(their.tolist()) == set(range(found.classes))
    shares = [torch.bincount(some) / len(some) for some in (labels, their)]
    assert (shares[0] - shares[1]).abs().max() < 0.01


@pytest.mark.parametrize("name", [name for name in DATA_SOURCES if name != "mnist1d"])
def test_loading_twice_gives_the_same(name):
    one, other = DATA_SOURCES[name].load(), DATA_SOURCES[name].load()
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])


@needs_mnist1d
def test_making_mnist1d_leaves_the_callers_random_numbers_alone():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the generator's own
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    inputs, labels = DATA_SOURCES["mnist1d"].load()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert (inputs.shape, labels.shape) == ((5000, 40), (5000,))
    found = dataset("mnist1d")
    assert len(found.train[1]) + len(found.held_out[1]) == 5000
    assert torch.bincount(torch.cat([found.train[1], found.held_out[1]])).tolist() == [500] * 10


def test_a_missing_package_is_said(monkeypatch):
    def fail(_name):
        raise ImportError("gone")

    monkeypatch.setattr(module, "import_module", fail)
    with pytest.raises(MissingExtraError, match=r"tamiyo\[bench\]"):
        DATA_SOURCES["mnist1d"].load()


def test_an_unknown_one_is_said():
    with pytest.raises(ValueError, match=r"unknown data set 'rust'.*digits"):
        dataset("rust")
