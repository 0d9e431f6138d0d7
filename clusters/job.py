"""What a job of `lgd submit` runs on the cluster: the verb, in a process of its own, its stdout marked in the log.

Not for people: `python -m lgd.clusters.job VERB ...` in the folder that `clusters/submit.py` shipped."""

import os
import subprocess
import sys
from pathlib import Path

import lgd

ANSWER = "\x1e"  # the record separator begins a line that the verb wrote to stdout


def main(words: list[str]) -> int:
    """Runs `lgd WORDS` in the home folder, since the one that was shipped goes away with the job; returns its exit
    code, as a shell would say it."""
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
    assert command.stdout
    for line in command.stdout:
        os.write(1, f"{ANSWER}{line}".encode())  # whole, lest a line of the verb's stderr comes between
    code = command.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
