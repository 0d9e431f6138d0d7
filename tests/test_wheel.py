"""The wheel, built from the files that the Dockerfile copies."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.wheel_files import problems

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    dockerfile = (ROOT / "clusters" / "docker" / "Dockerfile").read_text().splitlines()
    for copy in (line.split()[2:-1] for line in dockerfile if line.startswith("COPY")):
        for name in copy:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "dev")
                )
            else:
                shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", out, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("lgd-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_the_wheel_contains_every_module_and_the_files_for_clusters_and_nothing_else(names: set[str]):
    assert problems(names, ROOT) == []


def test_wrong_files_of_a_wheel_are_found(names: set[str]):
    """What the test above relies on."""
    wrong = (names - {"lgd/py.typed"}) | {"training/run.py", "lgd/benchmarks/dev/index.py", "lgd/pipeline/x.pyc"}
    assert problems(wrong, ROOT) == [
        "missing: lgd/py.typed",
        "outside lgd/: training/run.py",
        "only for development: lgd/benchmarks/dev/index.py",
        "not source: lgd/pipeline/x.pyc",
    ]
