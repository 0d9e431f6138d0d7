"""A small dataset of rendered videos, made once by the commands that a user runs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.dataset import Dataset, open_dataset
from preprocessing.render import render_set
from tests.processes import run_lgd


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small file system takes root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 classes of 3 videos, 80 x 64, 40 frames, 25 frames per second."""
    folder = tmp_path_factory.mktemp("videos")
    render_set(folder, videos_per_class=3)
    return folder


@pytest.fixture(scope="session")
def dataset_folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered videos at short side 64, both streams. Tests must not change it."""
    out = tmp_path_factory.mktemp("dataset") / "data"
    done = run_lgd("preprocess", videos, "--out", out, "--short-side", 64, "--val-fraction", 0.34)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def dataset(dataset_folder: Path) -> Dataset:
    return open_dataset(dataset_folder)
