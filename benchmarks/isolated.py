"""Run a module of this package in a child process, which starts with little memory and on given cores."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lgd
from lgd.pipeline.console.errors import UserError


def run_isolated(
    module: str, *arguments: str, name: str, cores: set[int] | None = None, timeout_s: float | None = None
) -> Any:
    """Run `python -m module arguments` and return the JSON document that it prints.

    cores: CPU cores of the process from its start; default: all. name: of what it measures, for the error message.
    timeout_s: after which it is killed; None: never.
    Raises UserError with the last line of the process's errors if it fails, and if it takes too long."""
    own_cores = os.sched_getaffinity(0)
    root = str(Path(lgd.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    os.sched_setaffinity(0, cores or own_cores)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=timeout_s is not None,
        )
    finally:
        os.sched_setaffinity(0, own_cores)
    try:
        document, errors = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{name} could not be measured in {timeout_s:.0f} s") from error
    finally:
        if timeout_s is not None:  # with the processes that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode:
        last = errors.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        if child.returncode < 0:
            last = [f"its process was ended by {signal.Signals(-child.returncode).name}"]
        raise UserError(f"{name} could not be measured: {last[0]}")
    return json.loads(document)
