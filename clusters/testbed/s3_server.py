"""A copy of a dataset in a real S3 server: moto's, in a process of its own on loopback. It is no fast one."""

import contextlib
import importlib.util
import os
import signal
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
    """A real S3 server on loopback, in a process of its own, with nothing in it but the bucket `lgd`.

    The environment must have ENVIRONMENT. Raises UserError if moto is not installed or does not start."""
    if importlib.util.find_spec("moto") is None:
        raise UserError("the S3 server is not installed: pip install 'moto[server]'")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
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
        server.send_signal(signal.SIGCONT)  # one that is stopped would not end
        server.terminate()
        server.wait()


@contextlib.contextmanager
def client_environment() -> Iterator[None]:
    """What an S3 client takes from the environment: credentials, and no way to anything but loopback."""
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
    """The address of the copy, which is there, for this process and its children, until the block ends.

    cores: those that the server may use. Raises UserError if moto is not installed or does not start."""
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
            raise UserError("the S3 server did not start: pip install 'moto[server]', and try `python -m moto.server`")
        time.sleep(0.02)
