"""Checks of a node that need no library, with pretended limits."""

import os
import resource
import shutil
import socket
import sysconfig
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from lgd.clusters.doctor import machine
from lgd.clusters.doctor.rows import OK, WARNING, WRONG

Usage = namedtuple("Usage", "total used free")


def test_more_cpus_than_the_node_has_are_a_warning():
    cpus = len(os.sched_getaffinity(0))
    assert machine.processors(cpus).verdict == OK
    row = machine.processors(cpus + 1)
    assert row.verdict == WARNING
    assert row.figure.endswith(f"GiB; Ray offers {cpus + 1}")


@pytest.mark.parametrize(("running", "verdict"), [(0.1, OK), (3.9, OK), (4.1, WARNING)])
def test_a_busy_node_is_a_warning(running: float, verdict: str):
    assert machine.load(running, cpus=8).verdict == verdict


@pytest.mark.parametrize(
    ("script", "figure"),
    [
        (None, "no gcc or clang"),
        (
            'echo "check.c:1:10: fatal error: Python.h: No such file or directory" >&2; exit 1',
            "gcc fails: Python.h: No such",
        ),
        ("exit 1", "gcc fails: no output"),
        ("exit 0", "gcc"),
    ],
)
def test_the_compiler_must_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, figure: str):
    if script:
        (tmp_path / "gcc").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    row = machine.compiler()
    assert row.figure.startswith(figure)
    assert row.verdict == (OK if script == "exit 0" else WARNING)
    assert ("apt-get install gcc" in row.advice) == (row.verdict == WARNING)


def test_the_compiler_of_cc_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "missing-compiler")
    assert machine.compiler().figure == "no missing-compiler"


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_a_real_compiler_compiles_the_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "gcc")
    row = machine.compiler()
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    assert row.verdict == (OK if headers else WARNING), row.figure


@pytest.mark.parametrize(
    ("total", "free", "verdict"),
    [(64 << 20, 64 << 20, WARNING), (32 << 30, 1 << 20, WARNING), (32 << 30, 31 << 30, OK)],
)
def test_a_small_or_full_shared_memory_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, total: int, free: int, verdict: str
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(total, total - free, free))
    assert machine.shared_memory("/dev/shm").verdict == verdict


@pytest.mark.parametrize(
    ("limit", "figure", "verdict"),
    [(1024, "at most 1,024", WARNING), (65536, "at most 65,536", OK), (resource.RLIM_INFINITY, "no limit", OK)],
)
def test_few_open_files_are_a_warning(limit: int, figure: str, verdict: str):
    row = machine.open_files(limit)
    assert (row.figure, row.verdict) == (figure, verdict)
    assert ("ulimit -n 65536" in row.advice) == (verdict == WARNING)


@pytest.mark.parametrize(("free_gib", "verdict"), [(0.5, WRONG), (5, WARNING), (50, OK)])
def test_little_free_space_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: float, verdict: str
):
    free = int(free_gib * (1 << 30))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free, 0, free))
    assert machine.temporary_folder(str(tmp_path)).verdict == verdict


def test_a_full_temporary_folder_is_a_row(monkeypatch: pytest.MonkeyPatch, full_disk: Path):
    (full_disk / "big").write_bytes(bytes(900 << 10))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(full_disk))
    (row,) = [row for row in machine.machine_rows(1, several=False) if row.name == "temporary files, free"]
    assert row.verdict == WRONG
    assert "set TMPDIR" in row.advice


@pytest.mark.parametrize(("address", "verdict"), [("127.0.1.1", WARNING), ("10.0.0.5", OK)])
def test_a_name_that_leads_to_loopback_is_a_warning(monkeypatch: pytest.MonkeyPatch, address: str, verdict: str):
    monkeypatch.setattr(socket, "gethostbyname", lambda name: address)
    assert machine.host_name("node1").verdict == verdict


def test_a_name_that_cannot_be_resolved_is_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch):
    def fail(name: str) -> str:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", fail)
    row = [*machine.machine_rows(1, several=True)][-1]
    assert (row.name, row.verdict) == ("host name", WRONG)
    assert "Name or service not known" in row.figure
    assert "/etc/hosts" in row.advice
