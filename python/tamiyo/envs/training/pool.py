"""The samples of all data sets that a cohort trains on, in one tensor."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tamiyo.envs.training.data import FEATURES, Dataset, dataset
from tamiyo.envs.training.hosts import HostSpec

__all__ = ["DataPool"]


class DataPool:
    """Training and held-out samples, looked up by their place in one table.

    Args:
        specs: The hosts.
        device: Where the samples lie.
        dtype: Their type.
    """

    def __init__(self, specs: Sequence[HostSpec], device: torch.device, dtype: torch.dtype) -> None:
        names = sorted({spec.data for spec in specs})
        data = [dataset(name) for name in names]
        starts = np.cumsum([0, *(len(one.train_labels) for one in data)])
        self._offsets = dict(zip(names, starts.tolist(), strict=False))
        self._x = torch.cat([_padded(one.train, dtype) for one in data]).to(device)
        labels = np.concatenate([one.train_labels for one in data])
        self._labels = torch.as_tensor(labels, device=device)
        self._held_out = {one.name: one for one in data}
        self._specs = specs
        self._device, self._dtype = device, dtype

    def of(self, specs: Sequence[HostSpec]) -> "DataPool":
        """The same table for other hosts, whose data must be in it."""
        same = copy.copy(self)
        same._specs = specs
        return same

    def places(self, orders: Tensor) -> Tensor:
        """Places in the table of training samples [H, ...], numbered within each data set."""
        offsets = torch.tensor([self._offsets[spec.data] for spec in self._specs])
        return orders + offsets.to(self._device).view(-1, *(1,) * (orders.dim() - 1))

    def samples(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [H, B, 64] and labels [H, B] at places [H, B]."""
        flat = places.reshape(-1)
        x = self._x.index_select(0, flat).view(*places.shape, FEATURES)
        return x, self._labels.index_select(0, flat).view(places.shape)

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        """The same `count` held-out samples of each host's data, [H, count, 64] and [H, count].

        A smaller held-out split is repeated from its beginning.
        """
        chosen = {name: _first(one, count, self._dtype) for name, one in self._held_out.items()}
        x = torch.stack([chosen[spec.data][0] for spec in self._specs])
        labels = torch.stack([chosen[spec.data][1] for spec in self._specs])
        return x.to(self._device), labels.to(self._device)


def _padded(samples: np.ndarray, dtype: torch.dtype) -> Tensor:
    x = torch.as_tensor(samples, dtype=dtype)
    return torch.nn.functional.pad(x, (0, FEATURES - x.shape[1]))


def _first(data: Dataset, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # The split shuffles, so that its first samples are a sample of all.
    index = np.arange(count) % len(data.held_out_labels)
    return _padded(data.held_out[index], dtype), torch.as_tensor(data.held_out_labels[index])
