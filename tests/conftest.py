"""What holds for every test: one torch thread, and property tests without a clock."""

import os

import pytest
import torch
from hypothesis import settings

# A busy machine is not a failed property. In CI the examples are the same in every run.
settings.register_profile("tamiyo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tamiyo")


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Two OpenMP pools on shared cores starve each other."""
    torch.set_num_threads(1)
