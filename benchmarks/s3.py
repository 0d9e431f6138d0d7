"""A copy of a dataset in a real S3 server: moto's, in a process of its own on loopback. It is no fast one."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pyarrow.fs as pafs

from pipeline.errors import UserError
from pipeline.storage import Storage

HOST = "127.0.0.1"
START_S = 60.0
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "lgd",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3_copy(folder: str, cores: set[int]) -> Iterator[str]:
    """The address of the copy, which is there, for this process and its children, until the block ends.

    cores: those that the server may use. Raises UserError if moto is not installed or does not start."""
    if importlib.util.find_spec("moto") is None:
        raise UserError("the S3 server that --s3 starts is not installed: pip install 'moto[server]'")
    before = dict(os.environ)
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        port = listening.getsockname()[1]
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    finally:
        os.sched_setaffinity(0, mine)
    try:
        _wait(server, port)
        for name in before:
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                del os.environ[name]
        endpoint = f"http://{HOST}:{port}"
        os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=endpoint)
        store = pafs.S3FileSystem(endpoint_override=endpoint, region="us-east-1", allow_bucket_creation=True)
        store.create_dir("lgd")
        local, copy = Storage(folder), Storage("s3://lgd/data")
        for name in local.tree():
            copy.write(name, local.read(name))
        yield copy.address
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((HOST, port), 1):
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise UserError("the S3 server did not start: pip install 'moto[server]', and try `python -m moto.server`")
        time.sleep(0.02)
