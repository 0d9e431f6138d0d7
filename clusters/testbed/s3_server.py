"""An S3 server for tests and benchmarks: moto's, in a child process on loopback. It is real, but slow."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pyarrow.fs as pafs

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage

HOST = "127.0.0.1"
START_S = 60.0
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "lgd",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run an S3 server on loopback in a child process, with one empty bucket, `lgd`, until the block ends.

    The environment must contain ENVIRONMENT (see `client_environment`). Raises UserError if moto is not installed or
    does not start."""
    if importlib.util.find_spec("moto") is None:
        raise UserError("the S3 server is not installed: pip install 'moto[server]'")
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "moto.server", "-H", HOST, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(server, port)
        store = pafs.S3FileSystem(
            endpoint_override=f"http://{HOST}:{port}", region="us-east-1", allow_bucket_creation=True
        )
        store.create_dir("lgd")
        yield server
    finally:
        server.kill()  # not SIGTERM, which child processes of `lgd` block (see pipeline/console/signals.py)
        server.wait()


@contextlib.contextmanager
def client_environment() -> Iterator[None]:
    """Set the environment of S3 clients until the block ends: credentials of the test server, no others, no proxy."""
    before = dict(os.environ)
    try:
        for name in before:
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                del os.environ[name]
        os.environ.update(ENVIRONMENT)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def s3_copy(folder: str, cores: set[int]) -> Iterator[str]:
    """Copy a local folder to an S3 server that runs until the block ends; yield the address of the copy, which this
    process and its children can open.

    cores: that the server may use. Raises UserError if moto is not installed or does not start."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        port = listening.getsockname()[1]
    with client_environment(), s3_server(port) as server:
        os.sched_setaffinity(server.pid, cores)
        os.environ["AWS_ENDPOINT_URL"] = f"http://{HOST}:{port}"
        local, copy = Storage(folder), Storage("s3://lgd/data")
        for name in local.list_all():
            copy.write(name, local.read(name))
        yield copy.address


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((HOST, port), 1):
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise UserError("the S3 server did not start: pip install 'moto[server]', then try `python -m moto.server`")
        time.sleep(0.02)
