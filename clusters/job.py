"""What a job of `lgd submit` runs on the cluster: one command in a child process, whose stdout is marked in the log.

Not for people. `clusters/submit.py` ships the package `lgd` as the job's working folder, in which Ray runs
`python -m lgd.clusters.job COMMAND ...`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lgd

STDOUT_MARK = "\x1e"  # ASCII's record separator begins a line that the command wrote to stdout


def main(words: list[str]) -> int:
    """Run `lgd WORDS` with the shipped package and return its exit code; 128 + n if signal n ended it.

    The command runs in the home folder, because the shipped folder is deleted with the job. The shipped package comes
    first on the import path, before an installed one, and `-P` keeps modules in the home folder from being imported.
    SIGINT and SIGTERM, with which Ray stops a job, are passed on to the command, which ends in its own way."""
    shipped = str(Path(lgd.__file__).parents[1])
    path = os.pathsep.join(filter(None, (shipped, os.environ.get("PYTHONPATH"))))
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "lgd", *words],
        stdout=subprocess.PIPE,
        cwd=Path.home(),
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        encoding="utf-8",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: command.send_signal(number))
    assert command.stdout
    for line in command.stdout:
        os.write(1, f"{STDOUT_MARK}{line}".encode())  # in one call, so that no line of stderr comes in between
    code = command.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
