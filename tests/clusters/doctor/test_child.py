"""Checks in child processes: crashes, time limits, and nodes with another `lgd`."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgd.clusters.doctor import child
from lgd.clusters.doctor.child import Group, node_environment, run_group, run_groups, run_together, with_time
from lgd.clusters.doctor.machine import machine_rows
from lgd.clusters.doctor.nodes import packed
from lgd.clusters.doctor.rows import NODE, OK, WRONG, Row

STUB = '__version__ = "0.1.0"\nraise ImportError("this lgd must not be imported")\n'


def crash_after_a_row() -> Iterator[tuple[str, str, str]]:
    print("noise of a library")  # not a row
    yield ("node", "first", "done")
    os.kill(os.getpid(), signal.SIGSEGV)


def fail() -> Iterator[tuple[str, str, str]]:
    raise RuntimeError("the decoder is broken")
    yield


@pytest.fixture
def other_lgd(tmp_path: Path) -> dict[str, str]:
    """The environment of a node on which `import lgd` fails."""
    (tmp_path / "lgd").mkdir()
    (tmp_path / "lgd" / "__init__.py").write_text(STUB)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def pack(check: object) -> bytes:
    """Pickle a function of this module with its code: the node has no tests."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return cloudpickle.dumps((check, {}))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_node_with_another_lgd_runs_the_checks_that_are_sent(other_lgd: dict[str, str]):
    group = Group(NODE, "machine", packed(machine_rows, ray_cpus=1.0, several=True), 60)
    rows = run_group(group, other_lgd)
    assert [row.name for row in rows] == [
        "CPUs and memory",
        "load",
        "C compiler",
        "/dev/shm, free",
        "open files",
        "temporary files, free",
        "host name",
    ]
    assert "must not be imported" not in str(rows)


def test_a_crash_is_a_row_after_those_that_came_before():
    rows = run_group(Group(NODE, "decoder", pack(crash_after_a_row), 60), os.environ)
    assert rows[0] == Row(NODE, "first", "done", OK)
    assert [(row.name, row.figure, row.verdict) for row in rows[1:]] == [
        ("decoder", "the check crashed (SIGSEGV)", WRONG)
    ]


def test_groups_that_run_together_each_have_their_rows():
    error, unpickled = run_together([Group(NODE, "decoder", pack(fail), 60), Group(NODE, "other", b"no pickle", 60)])
    assert error[0][:4] == (NODE, "decoder", "the check failed (RuntimeError: the decoder is broken)", WRONG)
    assert "the check failed (" in str(unpickled[0][2])


def test_a_check_that_takes_too_long_is_a_row_and_its_process_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child, "PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    rows = run_groups([Group(NODE, "network", b"", 0.2), Group(NODE, "disk", b"", 0.1)])
    assert [row[:4] for row in rows] == [
        (NODE, "network", "no result in 0.2 s", WRONG),
        (NODE, "disk", "no result in 0.1 s", WRONG),
    ]


@pytest.mark.parametrize(("load", "limit_s"), [(0.1, 20), (2.5, 50), (50, 80)])
def test_a_busy_node_has_more_time(load: float, limit_s: float):
    assert with_time([Group(NODE, "CPU", b"", 20)], load) == [Group(NODE, "CPU", b"", limit_s)]


def test_children_see_the_gpus_and_threads_of_the_node_and_not_those_of_the_task(tmp_path: Path):
    file = tmp_path / "environ"
    file.write_bytes(b"HOME=/root\0CUDA_VISIBLE_DEVICES=2,3\0EMPTY=")
    own = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKEN": "secret"}
    assert node_environment(own, file) == {"CUDA_VISIBLE_DEVICES": "2,3", "TOKEN": "secret"}
    assert node_environment(own, tmp_path / "missing") == {"TOKEN": "secret"}
