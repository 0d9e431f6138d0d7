"""The tests of this folder need a GPU: they have the marker `gpu`, and without a GPU they are skipped.

With GPU=true, as in `make gpu`, a missing GPU fails."""

import os
from pathlib import Path

import pytest
import torch

REASON = "needs an NVIDIA GPU that this PyTorch can use"


@pytest.hookimpl(tryfirst=True)  # before tests are selected by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("gpu")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test, or let it fail, before its fixtures are created: some take seconds."""
    if not torch.cuda.is_available():
        if os.environ.get("GPU") == "true":
            pytest.fail(f"{REASON}, and GPU=true", pytrace=False)
        pytest.skip(REASON)


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    """The GPU."""
    return torch.device("cuda", torch.cuda.current_device())
