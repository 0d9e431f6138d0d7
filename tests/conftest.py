"""A small dataset of rendered videos, made once by the commands that a user runs."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from pipeline import storage as storage_module
from pipeline import store_faults
from pipeline.dataset import Dataset, open_dataset
from pipeline.storage import Storage
from preprocessing.render import render_set
from tests.falterer import Between, Falterer, at
from tests.processes import free_port, run_lgd


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


@contextlib.contextmanager
def s3_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real S3 server on loopback, in a process of its own, with nothing in it but the bucket `lgd`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the S3 server did not start: is moto[server], of the dev extra, installed?"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        connection = pafs.S3FileSystem(
            endpoint_override=f"http://127.0.0.1:{port}", region="us-east-1", allow_bucket_creation=True
        )
        connection.create_dir("lgd")
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[None]:
    """What an S3 client takes from the environment: credentials, and no way to anything but loopback."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "lgd")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_REGION", "us-east-1")
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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a tenth as long, and always between two attempts."""
    monkeypatch.setattr(storage_module, "QUICK_ATTEMPTS", 1)
    monkeypatch.setattr(store_faults, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(storage_module, "SILENCE_S", 1.0)
    monkeypatch.setattr(storage_module, "CONNECT_S", 0.5)


@pytest.fixture
def falterer(s3_endpoint: str) -> Iterator[Between]:
    """The server between, whose behaviour a test sets, and its address."""
    kind = type("Between", (Falterer,), {"behind": s3_endpoint, "seen": Counter()})
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
def remote(dataset_folder: Path, s3: str, falterer: Between) -> Dataset:
    """The same dataset in an object store, behind the server that falters."""
    storage = Storage(s3)
    for path in dataset_folder.rglob("*"):
        if path.is_file():
            storage.write(path.relative_to(dataset_folder).as_posix(), path.read_bytes())
    return open_dataset(at(falterer[1], s3.removeprefix("s3://")))
