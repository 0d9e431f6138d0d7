"""A dataset without videos, for tests that only open runs, and small networks."""

from pathlib import Path

import pytest

from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.storage.storage import Storage
from lgd.training.models.config import MODELS, Family


@pytest.fixture
def empty_dataset(tmp_path: Path) -> Dataset:
    """A dataset with the stream rgb and the classes a and b; its folder is empty."""
    spec = StreamSpec("rgb", {"fps": 25.0})
    return Dataset(Storage(tmp_path / "data"), "f" * 16, ("a", "b"), 4, {"rgb": spec}, streams=("rgb",))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small families with more than one block in a stage, which the nano network has only in res4."""
    monkeypatch.setitem(MODELS, "small3d", Family((2, 1, 2, 1), True, "lgd", frames=16, size=32, width=4))
    monkeypatch.setitem(MODELS, "small2d", Family((2, 1, 2, 1), False, "lgd", frames=3, size=64, width=4))
