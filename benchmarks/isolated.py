"""A module of this package run in a process of its own: it starts with little memory, and on the cores it is given."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lgd
from lgd.pipeline.console.errors import UserError


def run_isolated(module: str, *words: str, what: str, cores: set[int] | None = None) -> Any:
    """The JSON document that `python -m module words` prints. cores: that it has from its start; by default all.

    Raises UserError with what it said last where it fails. what: is measured, in words."""
    mine = os.sched_getaffinity(0)
    root = str(Path(lgd.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    os.sched_setaffinity(0, cores or mine)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    finally:
        os.sched_setaffinity(0, mine)
    answer, said = child.communicate()
    if child.returncode:
        last = said.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise UserError(f"{what} could not be measured: {last[0]}")
    return json.loads(answer)
