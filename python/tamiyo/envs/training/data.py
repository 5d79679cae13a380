"""The data that hosts train on: what scikit-learn ships, and generators with fixed seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import datasets
from sklearn.model_selection import train_test_split

__all__ = [
    "CLASSES",
    "FEATURES",
    "HELD_OUT_DATA",
    "TRAINING_DATA",
    "Dataset",
    "dataset",
    "standardised_split",
]

FEATURES = 64
"""Most features of any data set; the others are padded with zeros."""
CLASSES = 10
"""Most classes."""
TRAINING_DATA: Sequence[str] = (
    "digits",
    "breast_cancer",
    "iris",
    "blobs",
    "islands",
    "survey",
    "rings",
    "hypercube",
)
"""What a policy may be trained on."""
HELD_OUT_DATA: Sequence[str] = ("wine", "spirals", "moons", "quantiles")
"""What it is only ever tested on."""

Samples = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Standardised samples for classification, split once and for all."""

    name: str
    train: npt.NDArray[np.float32]
    """[N, features]."""
    train_labels: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.float32]
    held_out_labels: npt.NDArray[np.int64]

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.train.shape[1])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


@cache
def dataset(name: str) -> Dataset:
    """A data set by its name, as `standardised_split` splits it.

    Raises:
        ValueError: an unknown name.
    """
    if name not in _SOURCES:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(_SOURCES)}")
    return Dataset(name, *standardised_split(*_SOURCES[name]()))


def standardised_split(
    inputs: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> tuple[
    npt.NDArray[np.float32],
    npt.NDArray[np.int64],
    npt.NDArray[np.float32],
    npt.NDArray[np.int64],
]:
    """Hold out 30 %, stratified by class; centre and scale every feature by what is trained on.

    Args:
        inputs: [N, features].
        labels: [N].

    Returns:
        Training inputs and labels, then those that are held out; the same at every call.
    """
    train, held_out, train_labels, held_out_labels = train_test_split(
        inputs, labels, test_size=0.3, random_state=0, stratify=labels
    )
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    # A pixel that is never set has no deviation.
    scale = np.where(deviation > 1e-6, deviation, 1.0)
    return (
        ((train - mean) / scale).astype(np.float32),
        train_labels.astype(np.int64),
        ((held_out - mean) / scale).astype(np.float32),
        held_out_labels.astype(np.int64),
    )


def _blobs() -> Samples:
    found: Samples = datasets.make_blobs(
        1200, n_features=8, centers=8, cluster_std=3.5, random_state=1
    )
    return found


def _islands() -> Samples:
    """Far apart: learned at once, after which hardly anything moves and nothing is wrong."""
    found: Samples = datasets.make_blobs(
        900, n_features=12, centers=4, cluster_std=1.5, random_state=5
    )
    return found


def _hypercube() -> Samples:
    found: Samples = datasets.make_classification(
        1500,
        n_features=24,
        n_informative=10,
        n_redundant=4,
        n_classes=5,
        n_clusters_per_class=2,
        class_sep=1.5,
        random_state=2,
    )
    return found


def _survey() -> Samples:
    """Few samples, a fifth of them with the label of any class: learned by heart, never right."""
    found: Samples = datasets.make_classification(
        360,
        n_features=16,
        n_informative=8,
        n_redundant=2,
        n_classes=4,
        n_clusters_per_class=1,
        class_sep=1.5,
        flip_y=0.2,
        random_state=7,
    )
    return found


def _rings() -> Samples:
    """Three concentric shells in four dimensions."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 1200)
    directions = random.normal(size=(1200, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radius = 1.0 + labels + random.normal(0.0, 0.25, 1200)
    return directions * radius[:, None], labels


def _spirals() -> Samples:
    """Three arms in the plane."""
    random = np.random.default_rng(4)
    labels = random.integers(0, 3, 1200)
    along = np.sqrt(random.uniform(0.02, 1.0, 1200))
    angle = 5.0 * along + 2.0 * np.pi * labels / 3.0 + random.normal(0.0, 0.12, 1200)
    return np.stack([along * np.cos(angle), along * np.sin(angle)], axis=1), labels


def _moons() -> Samples:
    """Two interleaved arcs, turned into six dimensions at random."""
    random = np.random.default_rng(6)
    flat, labels = datasets.make_moons(1200, noise=0.12, random_state=6)
    inputs = flat @ random.normal(size=(2, 6)) + random.normal(0.0, 0.05, (1200, 6))
    return inputs, labels


def _quantiles() -> Samples:
    """Shells of one normal distribution, which touch each other, in ten dimensions."""
    found: Samples = datasets.make_gaussian_quantiles(
        n_samples=1200, n_features=10, n_classes=3, random_state=8
    )
    return found


_SOURCES: Mapping[str, Callable[[], Samples]] = {
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "blobs": _blobs,
    "islands": _islands,
    "hypercube": _hypercube,
    "survey": _survey,
    "rings": _rings,
    "spirals": _spirals,
    "moons": _moons,
    "quantiles": _quantiles,
}
