"""A small dataset of rendered videos, made once by the commands that a user runs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.dataset import Dataset, open_dataset
from preprocessing.render import render_set


def run_lgd(*words: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """The `lgd` command in a process of its own."""
    command = [sys.executable, "-m", "lgd", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def run_lgd_until(ready: Callable[[], bool], *words: object, timeout_s: float = 300) -> None:
    """Starts the `lgd` command and kills it, its cluster and all their children with SIGKILL as soon as `ready`."""
    mark = f"LGD_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [sys.executable, "-m", "lgd", *map(str, words)],
        env={**os.environ, name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while found := _processes_with(mark):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):  # it has ended since it was found
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.05)
    assert process.wait() == -signal.SIGKILL


def _processes_with(mark: str) -> list[int]:
    """Processes that inherited an environment variable, without those that have ended but not been waited for."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is somebody else's
    return found


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
