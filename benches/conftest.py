"""What holds for every bench: one torch thread, whose figures can be compared."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
