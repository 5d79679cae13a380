"""What holds for every test: one torch thread, and property tests without a clock."""

import os
import signal

import pytest
import torch
from hypothesis import settings

from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

# A busy machine is not a failed property. In CI the examples are the same in every run.
settings.register_profile("tamiyo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tamiyo")


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Two OpenMP pools on shared cores starve each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interrupts_interrupt():
    """A shell makes what it runs in the background ignore them, and all that this starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_network():
    """Makes a small network with its first weights, the same at every call."""

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return EnhancedTamiyoPolicyGNN(
                PolicyConfig(hidden_dim=8, num_gnn_layers=1, num_attention_heads=1)
            )

    return make


@pytest.fixture
def untrained(small_network, tmp_path):
    """Folder of that network."""
    folder = tmp_path / "untrained"
    small_network().save_pretrained(folder, {"command": "none: it is not trained"})
    return folder
