"""Data sets that need no download: scikit-learn's, and MNIST-1D from its generator."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from sklearn import datasets
from torch import Tensor

from tamiyo.bench.faults.registry import Registry
from tamiyo.envs.training.data import standardised_split

__all__ = ["DATA_SOURCES", "DataSource", "Dataset", "MissingExtraError", "dataset"]

RawSamples: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class MissingExtraError(ImportError):
    """A data set whose package is not installed."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where samples come from.

    Attributes:
        name: By which it is found.
        load: Inputs [N, features] and labels [N] from 0 on; the same at every call.
        shape: Of one sample: (features,), (channels, length) or (channels, height, width).
    """

    name: str
    load: Callable[[], RawSamples]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Dataset:
    """Standardised samples on the CPU, split once and for all, stratified by class.

    Attributes:
        train: Inputs [N, *shape] and labels [N].
        held_out: The same, 30 % of all, never trained on.
    """

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.held_out[1].max()) + 1


DATA_SOURCES: Registry[DataSource] = Registry("data set")


@cache
def dataset(name: str) -> Dataset:
    """The data set of that name, in the shape of its source.

    Raises:
        ValueError: there is none.
        MissingExtraError: its package is not installed.
    """
    source = DATA_SOURCES.find(name)
    train, train_labels, held_out, held_out_labels = map(
        torch.from_numpy, standardised_split(*source.load())
    )
    return Dataset(
        (train.reshape(-1, *source.shape), train_labels),
        (held_out.reshape(-1, *source.shape), held_out_labels),
    )


def _blobs() -> RawSamples:
    found: RawSamples = datasets.make_blobs(
        1500, n_features=8, centers=8, cluster_std=2.6, random_state=1
    )
    return found


def _circles() -> RawSamples:
    found: RawSamples = datasets.make_circles(1500, noise=0.08, factor=0.5, random_state=0)
    return found


def _mnist1d() -> RawSamples:
    """Greydanus and Kobak, *Scaling down deep learning with MNIST-1D*, ICML 2024 (2011.14439).

    Made by the package's generator, from its own seed.
    """
    try:
        generator = import_module("mnist1d.data")
    except ImportError as error:
        raise MissingExtraError("MNIST-1D needs the extra tamiyo[bench]") from error
    # The generator seeds the global generators, which are not its own.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        made = generator.make_dataset(generator.get_dataset_args())
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
    inputs = np.concatenate([made["x"], made["x_test"]])
    return inputs, np.concatenate([made["y"], made["y_test"]])


DATA_SOURCES.add(DataSource("blobs", _blobs, (8,)))
DATA_SOURCES.add(DataSource("circles", _circles, (2,)))
DATA_SOURCES.add(
    DataSource("breast_cancer", lambda: datasets.load_breast_cancer(return_X_y=True), (30,))
)
DATA_SOURCES.add(DataSource("digits", lambda: datasets.load_digits(return_X_y=True), (1, 8, 8)))
DATA_SOURCES.add(DataSource("mnist1d", _mnist1d, (1, 40)))
