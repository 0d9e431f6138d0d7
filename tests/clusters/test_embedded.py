"""The cluster that a command uses, and who can reach it."""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from lgd.clusters.embedded import embedded_cpus, ensure_cluster
from lgd.clusters.testbed.processes import ProcessTree, free_port, run_lgd
from lgd.clusters.testbed.ray_nodes import RayNodes
from lgd.pipeline.console.errors import UserError
from tests.support.sockets import listening


def test_the_embedded_cluster_has_room_for_the_requested_workers_and_at_least_the_cpus_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert embedded_cpus() == 4
    assert embedded_cpus(num_workers=3) == 4
    assert embedded_cpus(num_workers=7) == 7
    assert embedded_cpus(num_workers=3, cpus_per_worker=1.5) == 5
    assert embedded_cpus(cpus_per_worker=6) == 6
    assert embedded_cpus(num_workers=100, cpus_per_worker=0.01) == 4


def test_a_cluster_with_another_version_of_ray_is_named(monkeypatch: pytest.MonkeyPatch):
    """Ray's message has seven lines."""

    def init(**options: object) -> None:
        cluster, this = "    Ray: 2.59.0\n    Python: 3.12.1\n", "    Ray: 2.60.0\n    Python: 3.11.7\n"
        start = "Version mismatch: The cluster was started with:"
        raise RuntimeError(f"{start}\n{cluster}This process on node 10.0.0.2 was started with:\n{this}")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError) as caught:
        ensure_cluster(address="auto")
    assert str(caught.value) == (
        "cannot join the cluster at auto: it runs Ray 2.59.0 and Python 3.12.1, but here are Ray 2.60.0 and "
        "Python 3.11.7: use the same versions"
    )


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", "cannot join the cluster at 127.0.0.1:{port} ([Errno 111] Connection refused)"),
        ("nonsense", "cannot join the cluster at nonsense (Invalid address format: nonsense)"),
        ("ray://127.0.0.1:{port}", "ray:// addresses are not supported; run the command on a node of the cluster"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_a_one_line_error(videos: Path, tmp_path: Path, address: str, message: str):
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
def test_resources_per_task_are_checked(videos: Path, tmp_path: Path, options: tuple[object, ...], message: str | None):
    """A task may request more CPUs than the machine has: the embedded cluster then offers as many."""
    done = run_lgd("preprocess", videos, "--out", tmp_path / "data", "--streams", "rgb", "--short-side", 32, *options)
    assert done.returncode == (2 if message else 0), done.stderr
    assert message is None or message in done.stderr


@pytest.mark.chaos
@pytest.mark.usefixtures("joined")
def test_sigterm_ends_the_tasks_of_a_command_on_a_joined_cluster_which_stays(
    running_cluster: RayNodes, videos: Path, tmp_path: Path
):
    out, log = tmp_path / "data", tmp_path / "log"
    words = ("preprocess", videos, "--out", out, "--short-side", 96, "--flow.backend", "opencv")
    command = ProcessTree(sys.executable, "-m", "lgd", *words, log=log)
    while not running_cluster.head.pids("ray::make_shard"):
        assert command.process.poll() is None, log.read_text()
        time.sleep(0.05)
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(timeout=60) == 143, log.read_text()
    assert log.read_text().splitlines()[-1] == "lgd: stopped by SIGTERM; rerun the same command to resume"
    deadline = time.monotonic() + 30
    while running := running_cluster.head.pids("ray::make_shard") + running_cluster.head.pids("ffmpeg"):
        assert time.monotonic() < deadline, running
        time.sleep(0.1)
    assert [path for path in out.rglob(".*") if path.is_file()] == []  # locks, and files that tasks were writing
    running_cluster.wait_for(cpus=3)


@pytest.mark.cluster
def test_the_embedded_cluster_listens_on_loopback_only(dataset_folder: Path, tmp_path: Path):
    """All its processes, while two workers train."""
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
    return [socket for socket in sockets if not ipaddress.ip_address(socket.rpartition(":")[0]).is_loopback]


def test_sockets_that_listen_on_all_addresses_are_found():
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
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert f"::1:{server.getsockname()[1]}" in listening([os.getpid()])
