"""Random weights and videos that are the same in every test run."""

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Seed torch: with some random weights a small network passes no gradient to a part of it."""
    torch.manual_seed(0)
