"""Fixtures that many tests share: a small dataset of rendered videos, S3 servers, Ray clusters. And the markers of the
tests that need servers and clusters."""

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

from lgd.clusters.testbed.processes import free_port
from lgd.clusters.testbed.ray_nodes import RayNodes, ray_nodes
from lgd.clusters.testbed.s3_server import client_environment, s3_server
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.storage import retries
from lgd.pipeline.storage import storage as storage_module
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.demo_videos import render_set
from tests.support.flaky_s3 import FlakyEndpoint, FlakyS3, s3_url
from tests.support.in_process import preprocess_in_process

CLUSTER_FIXTURES = {"nodes", "running_cluster", "joined", "head"}
S3_FIXTURES = {"s3_endpoint"}


@pytest.hookimpl(tryfirst=True)  # before tests are selected by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, also indirectly."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & CLUSTER_FIXTURES:
            item.add_marker("cluster")
        if fixtures & S3_FIXTURES:
            item.add_marker("s3")


@pytest.fixture(autouse=True)
def no_cluster_without_the_marker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of a test without the marker `cluster` cannot start a cluster, so that no marker is forgotten."""
    if not any(request.node.get_closest_marker(name) for name in ("cluster", "chaos")):
        monkeypatch.setenv("RAY_ADDRESS", "this-test-needs-the-marker-cluster")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """The root of a file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small file system requires root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[None]:
    """Credentials and region of the S3 server, in the environment."""
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
    """The address of an empty folder of the S3 server, which clients find in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return f"s3://lgd/{uuid.uuid4().hex}"


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between attempts to a tenth, and the time-outs."""
    monkeypatch.setattr(storage_module, "QUICK_ATTEMPTS", 1)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(storage_module, "SILENCE_S", 1.0)
    monkeypatch.setattr(storage_module, "CONNECT_S", 0.5)


@pytest.fixture
def flaky_s3(s3_endpoint: str) -> Iterator[FlakyEndpoint]:
    """A server that forwards requests to the S3 server and fails those that the test chooses."""
    kind = type("FlakyEndpoint", (FlakyS3,), {"upstream": s3_endpoint, "received": Counter()})
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
    """The rendered videos at short side 64, both streams. Tests must not change it.

    tests/preprocessing/test_job.py checks that `lgd preprocess` creates the same bytes on a cluster."""
    out = tmp_path_factory.mktemp("dataset") / "data"
    preprocess_in_process(videos, out, short_side=64, val_fraction=0.34)
    return out


@pytest.fixture(scope="session")
def dataset(dataset_folder: Path) -> Dataset:
    return open_dataset(dataset_folder)


@pytest.fixture(scope="session")
def unlabelled_dataset(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six of the rendered videos: train has two with a label and one without, val one with, test two without.

    Tests must not change it."""
    folder = tmp_path_factory.mktemp("unlabelled")
    paths = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.mp4"))
    rows = [("up", "train"), ("down", "train"), ("", "train"), ("up", "val"), ("", "test"), ("", "test")]
    lines = [f"{path},{label},{split}" for path, (label, split) in zip(paths, rows, strict=False)]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    preprocess_in_process(videos, folder / "data", short_side=64, annotations=folder / "list.csv", unlabelled=True)
    return open_dataset(folder / "data")


@pytest.fixture
def remote(dataset_folder: Path, s3: str, flaky_s3: FlakyEndpoint) -> Dataset:
    """The same dataset in an object store, through the server that fails requests of the test's choice."""
    storage = Storage(s3)
    for path in dataset_folder.rglob("*"):
        if path.is_file():
            storage.write(path.relative_to(dataset_folder).as_posix(), path.read_bytes())
    return open_dataset(s3_url(flaky_s3[1], s3.removeprefix("s3://")))


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    """A cluster of a head and two nodes with one CPU each."""
    with ray_nodes() as nodes:
        for _ in range(2):
            nodes.add(cpus=1)
        nodes.wait_for(cpus=2)
        yield nodes


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[RayNodes]:
    """A cluster of one node with 3 CPUs."""
    with ray_nodes(cpus=3) as nodes:
        nodes.wait_for(cpus=3)
        yield nodes


@pytest.fixture
def joined(running_cluster: RayNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of this test join a running cluster with 3 CPUs instead of each starting an embedded one."""
    for name, value in running_cluster.env.items():
        if name.startswith("RAY_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", running_cluster.address)
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one actor fewer to start
