"""Object stores: a real S3 server, and servers that fail for a while, reject requests or are unreachable."""

import pickle
import signal
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import free_port
from lgd.clusters.testbed.s3_server import s3_server
from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.storage import retries
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from tests.support.flaky_s3 import FlakyEndpoint, s3_url

LARGE = bytes(range(256)) * (12 << 12)  # 12 MiB: sent in more than one part


def test_a_written_file_is_read_back_completely_in_ranges_and_in_blocks(s3: str):
    storage = Storage(s3)
    assert not storage.local
    assert not storage.exists()
    assert storage.names() == storage.list_all() == []
    storage.write("empty", b"")
    storage.write("inside/large", LARGE)
    assert storage.read("empty") == b""
    assert storage.read("inside/large") == LARGE
    assert storage.read_range("inside/large", 1000, 300) == LARGE[1000:1300]
    assert storage.read_range("inside/large", len(LARGE) - 3, 10) == LARGE[-3:]
    blocks = list(storage.blocks("inside/large"))
    assert [len(block) for block in blocks] == [8 << 20, 4 << 20]
    assert b"".join(blocks) == LARGE
    assert list(storage.blocks("empty")) == []
    with storage.map("inside/large") as file:
        assert file.read() == LARGE
    assert (storage.size("inside/large"), storage.size("inside"), storage.size("x")) == (len(LARGE), None, None)
    assert storage.exists()
    assert storage.exists("inside")
    assert storage.exists("empty")
    assert not storage.exists("inside/larg")
    assert storage.names() == ["empty"]
    assert storage.names("inside") == ["large"]
    assert storage.list_all() == ["empty", "inside/large"]
    storage.delete("inside/large")
    assert storage.list_all() == ["empty"]
    with pytest.raises(FileNotFoundError):
        storage.read("inside/large")


def test_an_object_appears_only_when_it_is_complete_and_leaves_no_temporary_file(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage(s3)
    storage.write("a", b"old")

    def write_half() -> None:
        with storage.writer("a") as file:
            file.write(LARGE)
            file.flush()
            assert [path.name.startswith(TEMPORARY) for path in tmp_path.iterdir()] == [True]
            assert storage.read("a") == b"old"
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_half()
    assert storage.read("a") == b"old"
    assert storage.list_all() == ["a"]
    assert list(tmp_path.iterdir()) == []


def test_objects_that_mark_folders_are_not_files(s3: str):
    storage = Storage(s3)
    storage.fs.create_dir(storage.path("rgb/.parts"), recursive=True)  # as the AWS console and others leave them
    assert storage.names() == storage.names("rgb") == storage.list_all() == []
    assert storage.size("rgb") is None
    assert not storage.exists("dataset.json")
    storage.make_folder("flow")
    assert not storage.exists("flow")  # an object store has no folders


def test_an_address_with_a_query_names_its_files_and_is_rebuilt_in_another_process(s3_endpoint: str):
    address = s3_url(s3_endpoint, "lgd/with%20query/")
    storage = pickle.loads(pickle.dumps(Storage(address)))
    storage.write("inside/a", b"12345")
    assert storage.path("inside/a") == "lgd/with query/inside/a"
    assert storage.display("inside/a") == address.replace("/?", "/inside/a?")
    assert storage.display() == address
    assert storage.read("inside/a") == b"12345"
    assert storage.list_all() == ["inside/a"]


def test_a_password_in_an_address_is_used_and_not_shown(s3_endpoint: str):
    storage = Storage(s3_url(s3_endpoint).replace("s3://", "s3://key:pass%2Fword@"))
    assert storage.display("a") == s3_url(s3_endpoint, "lgd/folder/a")
    assert storage.fs.__reduce__()[1][0]["secret_key"] == "pass/word"


@pytest.mark.parametrize("address", ["s4://bucket/folder", "s3://", "s3://bucket/folder?regio=us-east-1"])
def test_an_invalid_address_is_one_line(s3_environment: None, address: str):
    with pytest.raises(UserError) as raised:
        Storage(address)
    assert "\n" not in str(raised.value)


def test_many_threads_share_a_storage(s3: str):
    storage = Storage(s3)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: storage.write(f"{i:02d}", bytes([i]) * 1000), range(32)))
        assert list(pool.map(lambda i: storage.read_range(f"{i:02d}", i, 3), range(32))) == [
            bytes([i]) * 3 for i in range(32)
        ]
    assert len(storage.names()) == 32


def test_every_operation_is_retried_when_the_store_fails_for_a_while(flaky_s3: FlakyEndpoint, fast_retries: None):
    kind, endpoint = flaky_s3
    kind.failures = 2
    storage = Storage(s3_url(endpoint, "lgd/failing"))
    storage.write("inside/large", LARGE)
    assert storage.read("inside/large") == LARGE
    assert storage.read_range("inside/large", 1000, 300) == LARGE[1000:1300]
    assert b"".join(storage.blocks("inside/large")) == LARGE
    assert storage.list_all() == ["inside/large"]
    assert storage.names("inside") == ["large"]
    assert storage.size("inside/large") == len(LARGE)
    storage.delete("inside/large")
    kind.failures = 0
    assert storage.list_all() == []
    assert max(kind.received.values()) > 2


def test_an_object_of_which_a_part_cannot_be_sent_is_an_error_and_does_not_exist(
    flaky_s3: FlakyEndpoint, fast_retries: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    kind, endpoint = flaky_s3
    kind.failures, kind.failing = 100, "PUT .*partNumber=2"
    storage = Storage(s3_url(endpoint, "lgd/parts"))
    with pytest.raises(StoreError, match="storage is unreachable"):
        storage.write("large", LARGE)
    assert storage.list_all() == []


@pytest.mark.s3
def test_requests_wait_for_a_store_that_restarts(
    s3_environment: None, fast_retries: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retries, "ATTEMPTS", 8)  # on a busy machine the server takes seconds to start
    port = free_port()
    storage = Storage(s3_url(f"http://127.0.0.1:{port}"))
    with s3_server(port):
        storage.write("a", b"before")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(storage.exists, "a")
        time.sleep(0.3)
        assert not found.done()
        with s3_server(port):  # a new, empty one
            assert found.result() is False
            storage.write("a", b"after")
            assert storage.read("a") == b"after"


@pytest.mark.s3
def test_requests_wait_for_a_store_that_hangs_for_a_while(s3_environment: None, fast_retries: None):
    port = free_port()
    storage = Storage(s3_url(f"http://127.0.0.1:{port}"))
    with s3_server(port) as server, ThreadPoolExecutor(1) as pool:
        server.send_signal(signal.SIGSTOP)
        written = pool.submit(storage.write, "a", LARGE)
        time.sleep(2.5)
        assert not written.done()
        server.send_signal(signal.SIGCONT)
        written.result()
        assert storage.read("a") == LARGE


@pytest.mark.parametrize("how", ["rejects connections", "accepts connections and sends nothing"])
def test_an_unreachable_store_is_one_line_within_seconds(
    s3_environment: None, fast_retries: None, monkeypatch: pytest.MonkeyPatch, how: str
):
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if how != "rejects connections":
            listening.listen(50)
        storage = Storage(s3_url(f"http://127.0.0.1:{listening.getsockname()[1]}"))
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"storage is unreachable \(.+\); progress is saved; rerun") as raised:
            storage.read("a")
        assert time.monotonic() - started < 20
    assert storage.display("a") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 320


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (404, "NoSuchBucket", "the bucket does not exist"),
        (403, "AccessDenied", "access denied: check the credentials"),
        (403, "InvalidAccessKeyId", "rejects the credentials"),
        (403, "SignatureDoesNotMatch", "rejects the credentials"),
        (400, "ExpiredToken", "rejects the credentials"),
        (301, "PermanentRedirect", r"another region: add \?region="),
        (400, "InvalidArgument", "rejects the request"),
    ],
)
def test_errors_that_the_user_can_fix_are_one_line_at_once(
    flaky_s3: FlakyEndpoint, status: int, code: str, advice: str
):
    kind, endpoint = flaky_s3
    kind.rejection = status, code
    storage = Storage(s3_url(endpoint))
    with pytest.raises(StoreError, match=advice) as raised:
        storage.write("a", b"1")
    assert "\n" not in str(raised.value)
    assert set(kind.received.values()) == {1}
    if status != 404:
        with pytest.raises(StoreError):
            storage.names()


def test_a_missing_bucket_is_not_a_missing_dataset(s3: str):
    with pytest.raises(StoreError, match=r"s3://missing/data: the bucket does not exist"):
        Storage("s3://missing/data").exists()


def test_a_full_temporary_folder_is_named_instead_of_the_store(
    s3: str, full_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(full_disk))
    with pytest.raises(UserError, match=rf"cannot write in {full_disk} .*TMPDIR.* no space is left"):
        Storage(s3).write("big", bytes(4 << 20))
    assert list(full_disk.iterdir()) == []
    assert Storage(s3).list_all() == []


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (
            "When getting information for key 'x' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject "
            "operation: curlCode: 7, Could not connect to server; Details: Failed to connect to 127.0.0.1:1 after 0 ms",
            "Failed to connect to 127.0.0.1:1 after 0 ms",
        ),
        (
            "When reading information for key 'x' in bucket 'b': AWS Error UNKNOWN (HTTP status 503) during HeadObject "
            "operation: No response body.",
            "HTTP status 503",
        ),
        (
            "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of PerformWork() - CURL "
            "error [7]=Could not connect to server error_info={reason=, domain=, metadata={}})",
            "CURL error [7]=Could not connect to server",
        ),
    ],
)
def test_the_reason_is_the_end_of_the_message_of_pyarrow(text: str, short: str):
    assert retries.reason(OSError(text)) == short
