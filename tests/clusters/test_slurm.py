"""The batch script on a real Slurm installation, named by `SLURM_CONF`. CI has none: the test is skipped there."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm" / "lgd.sbatch"
OPTIONS = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")

needs_slurm = pytest.mark.skipif(
    shutil.which("sbatch") is None or subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0,
    reason="Slurm is not available: sbatch is not installed, or no controller responds",
)


def test_the_script_is_valid_bash():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.cluster
@needs_slurm
def test_commands_run_on_both_tasks_and_no_files_are_left(videos: Path, tmp_path: Path):
    """While the job runs, only the user can read its folder and token."""
    modes: dict[str, int] = {}

    def look() -> None:
        for path in [*tmp_path.glob(".lgd-*"), *tmp_path.glob(".lgd-*/token")]:
            modes[path.name.partition("-")[0]] = stat.S_IMODE(path.stat().st_mode)

    data, short = tmp_path / "data", ("--streams", "rgb", "--short-side", 32)
    job, state, log = run(tmp_path, look, "preprocess", videos, "--out", data, *short, "--", "inspect", tmp_path / "no")
    assert state == "FAILED 1:0", log
    assert ": 2 nodes" in log
    assert "18 listed videos = 18 in the dataset + 0 rejected" in log
    assert f"lgd: dataset {tmp_path / 'no'} does not exist" in log
    assert modes == {".lgd": 0o700, "token": 0o600}
    assert list(tmp_path.glob(".lgd-*")) == []
    assert list(Path("/tmp").glob(f"lgd-{job}-*")) == []


def run(folder: Path, look: Callable[[], None], *words: object) -> tuple[str, str, str]:
    """Submit the script, call `look` while it runs; return the job's number, its state with exit code, and its log."""
    log = folder / "log"
    job = subprocess.run(
        ["sbatch", "--parsable", *OPTIONS, f"--output={log}", SCRIPT, *map(str, words)],
        cwd=folder,
        env={**os.environ, "LGD_PYTHON": sys.executable, "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    deadline = time.monotonic() + 180
    while "JobState=" in (info := show(job)) and not (state := field(info, "JobState")).startswith(
        ("COMPLETED", "FAILED", "CANCELLED")
    ):
        if time.monotonic() > deadline:
            subprocess.run(["scancel", job], check=True)
            raise AssertionError(f"{state}: {log.read_text()}")
        look()
        time.sleep(0.5)
    return job, f"{state} {field(info, 'ExitCode')}", log.read_text()


def show(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout


def field(info: str, name: str) -> str:
    return info.partition(f"{name}=")[2].split()[0]
