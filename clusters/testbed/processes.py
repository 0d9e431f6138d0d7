"""Commands in processes of their own, and how a test kills them with all that they started."""

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
    """The `lgd` command in a process of its own."""
    command = [sys.executable, "-m", "lgd", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)


class ProcessTree:
    """A process that is started with a mark in its environment, which all its children inherit."""

    def __init__(self, *command: object, env: Mapping[str, str] | None = None, log: Path = Path(os.devnull)):
        """log: what it prints is appended to it."""
        self._mark = f"{MARK}={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env={**(env or os.environ), name: value},
                stdout=output,
                stderr=output,
            )

    def pids(self, title: str = "") -> list[int]:
        """Its processes that are alive, children of children too, whose command line holds `title`.

        Without those that have ended but not been waited for."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or not ours
                if (
                    folder.name.isdigit()
                    and self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
                    and title.encode() in (folder / "cmdline").read_bytes()
                ):
                    found.append(int(folder.name))
        return found

    def kill(self) -> None:
        """SIGKILL to all of them, until none is left."""
        while found := self.pids():
            for pid in found:
                kill(pid)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


def kill(pid: int) -> None:
    """SIGKILL, also to one that has ended since it was found."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def run_lgd_until(ready: Callable[[], bool], *words: object, timeout_s: float = 300) -> None:
    """Starts the `lgd` command and kills it, its cluster and all their children with SIGKILL as soon as `ready`."""
    command = ProcessTree(sys.executable, "-m", "lgd", *words)
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert command.process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    command.kill()
    assert command.process.returncode == -signal.SIGKILL
