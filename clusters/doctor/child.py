"""Run the checks of a node one after the other, each group in a child process of its own: whatever crashes, hangs or
uses up memory there becomes a row."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.rows import WRONG, Row

# stdin: the check, pickled. stdout: a JSON line per row. What libraries print goes to stderr. SIGALRM ends the process
# if its parent no longer can. It exits without cleaning up: libraries crash there after their work is done.
PROGRAM = """
import json, os, signal, sys
signal.alarm(int(sys.argv[1]))
results = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from ray import cloudpickle
check, arguments = cloudpickle.load(sys.stdin.buffer)
for row in check(**arguments):
    results.write(json.dumps(row) + "\\n")
    results.flush()
os._exit(0)
"""
ALARM_AFTER_S = 5  # after the time limit
MAX_LOAD_FACTOR = 4.0  # of the time limits
# Ray sets these for a task that requests no CPU or GPU: one thread, and on some clusters no GPU.
OF_THE_NODE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


class Group(NamedTuple):
    """Checks that run in one child process. title: names the group in the row of a failure. payload: the pickled pair
    of a function that yields rows and its keyword arguments. limit_s: of the time."""

    section: str
    title: str
    payload: bytes
    limit_s: float


def run_groups(groups: Sequence[Group]) -> list[tuple[object, ...]]:
    """Return the rows of the groups as plain tuples. This is a task of Ray, which runs on the node."""
    environment = node_environment(os.environ, Path(f"/proc/{os.getppid()}/environ"))
    return [tuple(row) for group in with_time(groups, _load()) for row in run_group(group, environment)]


def run_together(groups: Sequence[Group]) -> list[list[tuple[object, ...]]]:
    """Return the rows of each of the groups, which run at the same time."""
    environment = node_environment(os.environ, Path(f"/proc/{os.getppid()}/environ"))
    with ThreadPoolExecutor(len(groups)) as threads:
        results = threads.map(run_group, with_time(groups, _load()), [environment] * len(groups))
    return [[tuple(row) for row in rows] for rows in results]


def with_time(groups: Sequence[Group], load: float) -> list[Group]:
    """Return the groups with time limits for a busy node, on which everything takes longer. load: running programs per
    CPU."""
    factor = min(max(load, 1.0), MAX_LOAD_FACTOR)
    return [group._replace(limit_s=round(group.limit_s * factor, 1)) for group in groups]


def _load() -> float:
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))


def node_environment(own: Mapping[str, str], parent: Path) -> dict[str, str]:
    """Return the environment for the child processes: that of this process, with the GPUs and threads of the node.

    parent: the file with the environment of the process of Ray that runs the node."""
    try:
        words = parent.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    node = {name: value for name, _, value in (word.partition("=") for word in words)}
    kept = {name: value for name, value in own.items() if name not in OF_THE_NODE}
    return kept | {name: node[name] for name in OF_THE_NODE if name in node}


def run_group(group: Group, environment: Mapping[str, str]) -> list[Row]:
    """Return the rows of a group, with one about its failure if it does not end by itself."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(int(group.limit_s) + ALARM_AFTER_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
    )
    failure = None
    try:
        output, log = child.communicate(group.payload, timeout=group.limit_s)
        if child.returncode:
            figure = _reason(child.returncode, log.decode(errors="replace"))
            failure = Row(group.section, group.title, figure, WRONG, advice.CRASHED)
    except subprocess.TimeoutExpired:
        _kill(child)
        output, _ = child.communicate()
        failure = Row(group.section, group.title, f"no result in {group.limit_s:g} s", WRONG, advice.TIME_LIMIT)
    finally:
        _kill(child)
    rows = [Row(*json.loads(line)) for line in output.decode().splitlines() if line.endswith("]")]
    return [*rows, failure] if failure else rows


def _reason(code: int, log: str) -> str:
    """Why a child process failed: the signal that ended it, or the last line that it printed."""
    lines = log.strip().splitlines()
    if code < 0:
        return f"the check crashed ({signal.Signals(-code).name})"
    return f"the check failed ({lines[-1][:200]})" if lines else f"the check failed with exit code {code}"


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """Kill the child process and its own children."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
