import tempfile
from pathlib import Path

import pytest

from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from tests.prediction.random_runs import make_run


@pytest.fixture(scope="package")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One run per stream, by stream. Tests must not change them."""
    folder = tmp_path_factory.mktemp("runs")
    return {stream: make_run(folder / stream, stream, dataset) for stream in STREAMS}


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
