"""A dataset without videos, for tests that only open runs."""

from pathlib import Path

import pytest

from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.storage.storage import Storage


@pytest.fixture
def empty_dataset(tmp_path: Path) -> Dataset:
    """A dataset with the stream rgb and the classes a and b; its folder is empty."""
    spec = StreamSpec("rgb", {"fps": 25.0})
    return Dataset(Storage(tmp_path / "data"), "f" * 16, ("a", "b"), 4, {"rgb": spec}, streams=("rgb",))
