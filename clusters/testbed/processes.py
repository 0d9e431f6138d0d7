"""Run commands as child processes of tests and benchmarks, and kill them together with all their children."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

MARK = "LGD_TEST"


def run_lgd(
    *words: object, timeout_s: float = 300, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the `lgd` command as a child process and return its result with stdout and stderr."""
    command = [sys.executable, "-m", "lgd", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)


class ProcessTree:
    """A child process and all its descendants, found by a variable in the environment that they inherit."""

    def __init__(self, *command: object, env: Mapping[str, str] | None = None, log: Path = Path(os.devnull)):
        """Start `command`. log: a file to which its stdout and stderr are appended."""
        self._variable = f"{MARK}={uuid.uuid4()}"
        name, _, value = self._variable.partition("=")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env={**(env or os.environ), name: value},
                stdout=output,
                stderr=output,
            )

    def pids(self, title: str = "") -> list[int]:
        """Return the ids of its living processes whose command line contains `title`. Zombies do not count."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(
                FileNotFoundError, ProcessLookupError, PermissionError
            ):  # ended, or of another user
                if (
                    folder.name.isdigit()
                    and self._variable.encode() in (folder / "environ").read_bytes().split(b"\0")
                    and title.encode() in (folder / "cmdline").read_bytes()
                ):
                    found.append(int(folder.name))
        return found

    def kill(self) -> None:
        """Send SIGKILL to all its processes until none is left."""
        while found := self.pids():
            for pid in found:
                kill(pid)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


def kill(pid: int) -> None:
    """Send SIGKILL to a process, which may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    """Return a TCP port that is free on loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def run_lgd_until(ready: Callable[[], bool], *words: object, timeout_s: float = 300) -> None:
    """Start the `lgd` command; as soon as `ready` returns true, kill it, its cluster and all their children.

    Raises AssertionError if the command ends before, or after `timeout_s` seconds."""
    command = ProcessTree(sys.executable, "-m", "lgd", *words)
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert command.process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    command.kill()
    assert command.process.returncode == -signal.SIGKILL
