"""The process that runs the command of a job."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lgd.clusters import job
from lgd.clusters.job import STDOUT_MARK


def run_job(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lgd.clusters.job", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_line_of_stdout_is_marked():
    done = run_job("models", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.rstrip("\n").split("\n")  # `splitlines` also splits at the mark
    assert all(line.startswith(STDOUT_MARK) for line in lines)
    assert len(json.loads("".join(line.removeprefix(STDOUT_MARK) for line in lines))) > 3


def test_stderr_is_not_marked_and_the_exit_code_is_returned():
    done = run_job("models", "--classes", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lgd: --classes must be 1 or more")


def test_the_exit_code_of_a_killed_command_is_that_of_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -TERM $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert job.main(["models"]) == 128 + 15
