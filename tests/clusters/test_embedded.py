"""Which cluster a command works on, and who can reach it."""

import ipaddress
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import ProcessTree, free_port, run_lgd
from tests.support.sockets import listening


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", "cannot join the cluster at 127.0.0.1:{port} ([Errno 111] Connection refused)"),
        ("nonsense", "cannot join the cluster at nonsense (Invalid address format: nonsense)"),
        ("ray://127.0.0.1:{port}", "run the command on a node of the cluster"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(videos: Path, tmp_path: Path, address: str, message: str):
    port = free_port()
    words = ("--out", tmp_path / "data", "--short-side", 32, "--address", address.format(port=port))
    done = run_lgd("preprocess", videos, *words, timeout_s=60)
    assert done.returncode == 1
    assert message.format(port=port) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cpus-per-task", 4, "--workers", 1), None),
        (("--cpus-per-task", 0), "--cpus-per-task must be greater than 0"),
        (("--num-workers", 0), "--num-workers must be 1 or more"),
        (("--gpus-per-task", 0.5), "--gpus-per-task requires --flow.backend torch --flow.device cuda"),
        (
            ("--flow.backend", "torch", "--flow.device", "cuda", "--gpus-per-task", 1.5),
            "must be a fraction of 1 or a whole number",
        ),
        (("--flow.device", "cuda"), "--flow.device cuda requires --flow.backend torch"),
    ],
)
def test_what_a_task_takes_is_checked(videos: Path, tmp_path: Path, options: tuple[object, ...], message: str | None):
    """A worker may take more CPUs than the machine has: the embedded cluster then offers as many."""
    done = run_lgd("preprocess", videos, "--out", tmp_path / "data", "--streams", "rgb", "--short-side", 32, *options)
    assert done.returncode == (2 if message else 0), done.stderr
    assert message is None or message in done.stderr


@pytest.mark.cluster
def test_the_embedded_cluster_listens_on_loopback_only(dataset_folder: Path, tmp_path: Path):
    """Every process of it, while two workers train."""
    words = ("nano-rgb", "--data", dataset_folder, "--run", tmp_path / "run", "--num-workers", 2, 2, "--epochs", 200)
    command = ProcessTree(sys.executable, "-m", "lgd", "train", *words, log=tmp_path / "log")
    seen: set[str] = set()
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert command.process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            seen |= listening(command.pids())
            time.sleep(0.5)
    finally:
        command.kill()
    assert len(seen) > 5
    assert beyond_loopback(seen) == []


def beyond_loopback(sockets: set[str]) -> list[str]:
    return [at for at in sockets if not ipaddress.ip_address(at.rpartition(":")[0]).is_loopback]


def test_sockets_that_listen_elsewhere_are_seen():
    """What the test above relies on."""
    code = "import socket; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); s.accept()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    port = int(process.stdout.readline())
    try:
        assert listening([process.pid]) == {f"0.0.0.0:{port}"}
    finally:
        process.kill()
        process.communicate()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as own:
        assert f"::1:{own.getsockname()[1]}" in listening([os.getpid()])
