"""Every test of the flow computes with one thread, unless it sets another number."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Set one thread for PyTorch, and restore the number after the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
