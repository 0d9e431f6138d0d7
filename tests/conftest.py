"""A small dataset of rendered videos, made once by the commands that a user runs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset import Dataset, open_dataset
from preprocessing.render import render_set

Lgd = Callable[..., subprocess.CompletedProcess[str]]


def run_lgd(*words: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """The `lgd` command in a process of its own."""
    command = [sys.executable, "-m", "lgd", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


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
