"""Child processes of benchmarks: their result, their error in one line, and a limit of their time."""

import time
from pathlib import Path

import pytest

from lgd.benchmarks.isolated import run_isolated
from lgd.pipeline.console.errors import UserError

SOURCE = """
import os, signal, subprocess, sys, time
if sys.argv[1] == "fail":
    raise ValueError("no such card")
if sys.argv[1] == "crash":
    print("a warning", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGSEGV)
if sys.argv[1] == "hang":
    child = subprocess.Popen(["sleep", "60"])
    open(sys.argv[2], "w").write(str(child.pid))
    time.sleep(60)
print('{"answer": "%s"}' % sys.argv[1])
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `isolated_child` that does what its argument says."""
    (tmp_path / "isolated_child.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_the_document_of_the_child_is_returned():
    assert run_isolated("isolated_child", "x", name="a child", timeout_s=60) == {"answer": "x"}


@pytest.mark.parametrize(
    ("word", "reason"), [("fail", "ValueError: no such card"), ("crash", "its process was ended by SIGSEGV")]
)
def test_an_error_and_a_crash_are_one_line(word: str, reason: str):
    with pytest.raises(UserError, match=rf"^a child could not be measured: {reason}$"):
        run_isolated("isolated_child", word, name="a child")


def test_a_child_that_takes_too_long_is_killed_with_the_processes_that_it_started(tmp_path: Path):
    with pytest.raises(UserError, match=r"^a child could not be measured in 2 s$"):
        run_isolated("isolated_child", "hang", str(tmp_path / "pid"), name="a child", timeout_s=2)
    deadline = time.monotonic() + 10
    while _runs(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
