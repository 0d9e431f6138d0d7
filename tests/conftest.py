"""A small dataset of rendered videos, made once by the commands that a user runs."""

import os
import shutil
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import free_port, run_lgd
from lgd.clusters.testbed.ray_nodes import RayNodes, ray_nodes
from lgd.clusters.testbed.s3_server import client_environment, s3_server
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.storage import retries as store_faults
from lgd.pipeline.storage import storage as storage_module
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.demo_videos import render_set
from tests.support.flaky_s3 import FlakyEndpoint, FlakyS3, s3_url


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small file system takes root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[None]:
    """What an S3 client takes from the environment."""
    with client_environment():
        yield


@pytest.fixture(scope="session")
def s3_endpoint(s3_environment: None) -> Iterator[str]:
    """The address of a running S3 server."""
    port = free_port()
    with s3_server(port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder of a bucket, found by the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return f"s3://lgd/{uuid.uuid4().hex}"


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a tenth as long, and always between two attempts."""
    monkeypatch.setattr(storage_module, "QUICK_ATTEMPTS", 1)
    monkeypatch.setattr(store_faults, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(storage_module, "SILENCE_S", 1.0)
    monkeypatch.setattr(storage_module, "CONNECT_S", 0.5)


@pytest.fixture
def flaky_s3(s3_endpoint: str) -> Iterator[FlakyEndpoint]:
    """The server between, whose behavior a test sets, and its address."""
    kind = type("FlakyEndpoint", (FlakyS3,), {"behind": s3_endpoint, "seen": Counter()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 classes of 3 videos, 80 x 64, 40 frames, 25 frames per second."""
    folder = tmp_path_factory.mktemp("videos")
    render_set(folder, videos_per_class=3)
    return folder


@pytest.fixture(scope="session")
def dataset_folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered videos at short side 64, both streams. Tests must not change it."""
    out = tmp_path_factory.mktemp("dataset") / "data"
    done = run_lgd("preprocess", videos, "--out", out, "--short-side", 64, "--val-fraction", 0.34)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def dataset(dataset_folder: Path) -> Dataset:
    return open_dataset(dataset_folder)


@pytest.fixture
def remote(dataset_folder: Path, s3: str, flaky_s3: FlakyEndpoint) -> Dataset:
    """The same dataset in an object store, behind the server that falters."""
    storage = Storage(s3)
    for path in dataset_folder.rglob("*"):
        if path.is_file():
            storage.write(path.relative_to(dataset_folder).as_posix(), path.read_bytes())
    return open_dataset(s3_url(flaky_s3[1], s3.removeprefix("s3://")))


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    """A cluster of a head and two nodes of one CPU."""
    with ray_nodes() as nodes:
        for _ in range(2):
            nodes.add(cpus=1)
        nodes.wait_for(cpus=2)
        yield nodes


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[RayNodes]:
    with ray_nodes(cpus=3) as nodes:
        nodes.wait_for(cpus=3)
        yield nodes


@pytest.fixture
def joined(running_cluster: RayNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this test join a cluster of 3 CPUs, which is there already, instead of starting one each."""
    for name, value in running_cluster.env.items():
        if name.startswith("RAY_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", running_cluster.address)
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # an actor less to start
