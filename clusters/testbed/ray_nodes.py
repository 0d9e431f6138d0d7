"""Ray clusters on this machine for tests and benchmarks: several nodes, each of them separate processes that can be
killed; and a single head that accepts jobs."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from lgd.clusters.testbed.processes import ProcessTree, free_port

RAY_COMMAND = """
import sys, ray.scripts.scripts as ray
sys.argv = ["ray", *sys.argv[1:]]
ray.main()
"""


class RayNodes:
    """A head and worker nodes. address: of the cluster. env: the environment of a command that may join it."""

    def __init__(self, folder: Path, cpus: int = 0):
        """Start the head. folder: for Ray's logs and sockets; its path must be short. cpus: that the head offers."""
        self._folder, self._port, self._started = folder, free_port(), 0
        self._number: dict[ProcessTree, int] = {}  # the name of each node's folder
        self.address = f"127.0.0.1:{self._port}"
        self.env = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            # So that Ray detects the loss of a node within seconds.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "4",
            "RAY_raylet_start_wait_time_s": "60",
        }
        self.head = self._start("--head", f"--port={self._port}", f"--num-cpus={cpus}", "--include-dashboard=false")
        self.nodes: list[ProcessTree] = []

    def add(self, cpus: int = 1, gpus: int = 0, env: Mapping[str, str] | None = None) -> ProcessTree:
        """Start one more node. gpus: that it pretends to have. env: additional variables of its environment."""
        node = self._start(f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}", env=env)
        self.nodes.append(node)
        return node

    def kill(self, node: ProcessTree) -> None:
        """Kill a node: SIGKILL to all its processes."""
        node.kill()
        self.nodes.remove(node)

    def announce_preemption(self, node: ProcessTree, deadline_s: int = 60) -> None:
        """Announce the preemption of a node to the cluster, as a cloud provider does shortly before it."""
        program = (
            "import ray, sys; ray.init(address=sys.argv[1]); "
            "print(*(node['NodeID'] for node in ray.nodes() if sys.argv[2] in node['RayletSocketName']))"
        )
        folder = f"{self._folder}/{self._number[node]}/"
        done = subprocess.run(
            [sys.executable, "-c", program, self.address, folder],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        why = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--address", self.address)
        words = ("drain-node", f"--node-id={done.stdout.strip()}", *why, f"--deadline-remaining-seconds={deadline_s}")
        subprocess.run([sys.executable, "-c", RAY_COMMAND, *words], env=self.env, capture_output=True, check=True)

    def wait_for(self, cpus: int, timeout_s: float = 60) -> None:
        """Wait until the cluster offers this number of CPUs. Raises AssertionError after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while (offered := self._offered_cpus()) != cpus:
            assert time.monotonic() < deadline, f"the cluster offers {offered} CPUs, not {cpus}"
            time.sleep(0.5)

    def stop(self) -> None:
        """Kill all nodes and the head."""
        for node in [*self.nodes, self.head]:
            node.kill()

    def _start(self, *words: str, env: Mapping[str, str] | None = None) -> ProcessTree:
        self._started += 1  # nodes that start at the same time in the same folder would use the same sockets
        folder = self._folder / str(self._started)
        command = (sys.executable, "-c", RAY_COMMAND, "start", "--block", f"--temp-dir={folder}", *words)
        log = self._folder / "start.log"
        process = ProcessTree(*command, "--object-store-memory=100000000", env={**self.env, **(env or {})}, log=log)
        self._number[process] = self._started
        return process

    def _offered_cpus(self) -> int:
        """The CPUs of all nodes; -1 if the head does not respond."""
        program = "import ray, sys; ray.init(address=sys.argv[1]); print(int(ray.cluster_resources().get('CPU', 0)))"
        command = [sys.executable, "-c", program, self.address]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return int(done.stdout) if done.returncode == 0 else -1


class Head:
    """A head with one CPU and a dashboard that accepts jobs; all its ports are on loopback.

    address: of the cluster; dashboard: the dashboard's URL; env: the environment of a process that has its token."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None):
        """Start the head and wait for it. Raises AssertionError if it does not start within 90 s.

        folder: for Ray's logs and sockets, and the home folder of its jobs; its path must be short. env: additional
        variables of its environment, which its jobs inherit."""
        port, dashboard, client = free_port(), free_port(), free_port()
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        self.loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        self.env = {
            **os.environ,
            **self.loopback,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        }
        log = folder / "start.log"
        self.process = ProcessTree(
            *(
                sys.executable,
                "-c",
                RAY_COMMAND,
                "start",
                "--head",
                "--block",
                f"--temp-dir={folder}/ray",
                f"--port={port}",
            ),
            *("--num-cpus=1", "--object-store-memory=100000000", "--include-dashboard=true"),
            *(f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0", f"--ray-client-server-port={client}"),
            env={**self.env, **(env or {})},
            log=log,
        )
        deadline = time.monotonic() + 90
        while "block forever" not in log.read_text():
            assert self.process.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def job_info(self, job: str) -> dict[str, Any]:
        """Return what the job server knows about a job, as its REST API describes it."""
        headers = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        response = requests.get(f"{self.dashboard}/api/jobs/{job}", headers=headers, timeout=10)
        response.raise_for_status()
        return dict(response.json())

    def stop(self) -> None:
        """Kill the head and its jobs."""
        self.process.kill()


@contextmanager
def ray_nodes(cpus: int = 0) -> Iterator[RayNodes]:
    """Run a head that offers `cpus` CPUs; nodes can be added. All of them are killed when the block ends."""
    # Not pytest's temporary folder: the paths of Ray's sockets in it may be longer than the system allows.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        nodes = RayNodes(Path(folder), cpus)
        try:
            yield nodes
        finally:
            nodes.stop()
