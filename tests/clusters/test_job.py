"""The process that runs the command of a job."""

import json
import signal
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_end_of_the_command_is_waited_for(number: signal.Signals, tmp_path: Path):
    """So that a training can write its last checkpoint."""
    python = tmp_path / "python"
    wait = "while true; do sleep 0.05; done"
    python.write_text(f"#!/bin/sh\ntrap 'echo saved; exit 143' {number.name[3:]}\necho started\n{wait}\n")
    python.chmod(0o755)
    program = f"import sys; from lgd.clusters import job; sys.executable = {str(python)!r}; sys.exit(job.main([]))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == f"{STDOUT_MARK}started\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == f"{STDOUT_MARK}saved\n"
    assert process.returncode == 143
