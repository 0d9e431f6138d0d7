"""The shard cache: with any content, damage or other processes, clips have the bytes of the object store."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgd.clusters.testbed.processes import kill, run_lgd
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.reader import ClipReader, CorruptFrame
from lgd.pipeline.storage.cache import LOCK, CacheFolder, ShardCache, put
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from tests.support.flaky_s3 import FlakyEndpoint

LARGE = 1 << 40
NAME = f"rgb-train-000000-{'0' * 32}.tar"


def name_of(number: int) -> str:
    return NAME.replace("0" * 32, f"{number:032x}")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def cached_files(folder: Path) -> list[str]:
    """The complete files of a cache; checks that it contains no others."""
    found = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    assert not [name for name in found if name.startswith(TEMPORARY)]
    return found


def shard_bytes(flaky_s3: FlakyEndpoint) -> list[str]:
    return [r for r in flaky_s3[0].received.elements() if r.startswith("GET") and ".tar" in r]


def read_all(dataset: Dataset, cache: ShardCache | None) -> list[bytes]:
    """16 frames of every video."""
    reader = ClipReader(Index(replace(dataset, cache=cache), "rgb"))
    rows = range(len(reader.index))
    return [b"".join(frame.tobytes() for frame in reader.read(row, np.arange(5, 21))) for row in rows]


def fill_cache(dataset: Dataset, folder: Path) -> None:
    """Put all five shards and the index into the cache."""
    with ShardCache(folder, LARGE) as cache:
        read_all(dataset, cache)
        wait_until(lambda: len([path for path in folder.iterdir() if path.name[0] != "."]) == 6)


def test_shards_are_fetched_once_and_later_runs_read_none(
    dataset: Dataset, remote: Dataset, flaky_s3: FlakyEndpoint, tmp_path: Path
):
    expected = read_all(dataset, None)
    with ShardCache(tmp_path, LARGE) as cache:
        assert read_all(remote, cache) == expected
        wait_until(lambda: len([path for path in tmp_path.iterdir() if path.name[0] != "."]) == 6)
        flaky_s3[0].received.clear()
        assert read_all(remote, cache) == expected
    assert len(cached_files(tmp_path)) == 6
    with ShardCache(tmp_path, LARGE) as cache:  # a later run
        assert read_all(remote, cache) == expected
    assert shard_bytes(flaky_s3) == []
    assert not [request for request in flaky_s3[0].received if request.startswith("GET") and "index" in request]


def test_a_local_dataset_is_not_cached(dataset: Dataset, tmp_path: Path):
    with ShardCache(tmp_path, LARGE) as cache:
        read_all(dataset, cache)
    assert cached_files(tmp_path) == []


WORKER = """
import hashlib, sys, time
from lgd.pipeline.storage.cache import ShardCache
from lgd.pipeline.dataset.dataset import open_dataset
from tests.pipeline.storage.test_cache import read_all
with ShardCache(sys.argv[2], 1 << 40) as cache:
    for _ in range(20):
        content = read_all(open_dataset(sys.argv[1]), cache)
        time.sleep(0.05)
print(hashlib.sha256(b"".join(content)).hexdigest())
"""


def test_two_processes_at_once_fetch_each_shard_once(remote: Dataset, flaky_s3: FlakyEndpoint, tmp_path: Path):
    words = [sys.executable, "-c", WORKER, remote.storage.address, str(tmp_path)]
    workers = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(2)]
    digests = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0]
    assert len(digests) == 1
    assert len(cached_files(tmp_path)) == 6
    sizes = [remote.storage.size(f"rgb/{name}") for name in remote.storage.names("rgb") if name.endswith(".tar")]
    complete = [r for r in shard_bytes(flaky_s3) if r.endswith(tuple(f"bytes=0-{size - 1}" for size in sizes if size))]
    assert len(complete) == len(sizes) == 5


KILLED = """
import sys
from lgd.pipeline.storage.cache import CacheFolder, put
def blocks():
    yield bytes(1000)
    print("written", flush=True)
    sys.stdin.read()
put(CacheFolder(sys.argv[1], 10000), sys.argv[2], 5000, blocks=blocks(), wait=False)
"""


def test_a_killed_process_leaves_no_incomplete_shard_and_no_lock(tmp_path: Path):
    words = [sys.executable, "-c", KILLED, str(tmp_path), NAME]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        folder = CacheFolder(str(tmp_path), 10000)
        assert put(folder, NAME, 3, blocks=iter([b"abc"]), wait=False)  # left to that process
        assert sorted(os.listdir(tmp_path)) == [LOCK, TEMPORARY + NAME]
        with ShardCache(tmp_path, 10000):  # the process is alive: its file is kept
            assert sorted(os.listdir(tmp_path)) == [LOCK, TEMPORARY + NAME]
        assert not put(folder, name_of(1), 5001, blocks=iter([bytes(5001)]), wait=False)  # its full size is counted
        kill(process.pid)
        process.wait()
    with ShardCache(tmp_path, 10000) as cache:
        assert cache.open(NAME) is None
        assert cached_files(tmp_path) == []
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        kill(process.pid)
    assert put(folder, NAME, 3, blocks=iter([b"abc"]), wait=True)  # without opening the cache first
    assert (tmp_path / NAME).read_bytes() == b"abc"
    assert cached_files(tmp_path) == [NAME]


def test_the_least_recently_used_files_are_removed_to_keep_the_size(tmp_path: Path):
    (tmp_path / "notes.tar").write_bytes(bytes(5000))  # not a file of the cache
    folder = CacheFolder(str(tmp_path), 3000, keep_s=100)
    for number in range(3):
        assert put(folder, name_of(number), 1000, blocks=iter([bytes(1000)]), wait=False)
        os.utime(tmp_path / name_of(number), (0, time.time() - 1000 + number))
    os.utime(tmp_path / name_of(0))  # used again
    assert put(folder, name_of(3), 1500, blocks=iter([bytes(1000), bytes(500)]), wait=False)
    assert cached_files(tmp_path) == ["notes.tar", name_of(0), name_of(3)]
    # The other files are in use: they are not replaced ...
    assert not put(folder, name_of(4), 1000, blocks=iter([bytes(1000)]), wait=False)
    assert not put(folder, name_of(5), 3001, blocks=iter([bytes(3001)]), wait=False)
    assert cached_files(tmp_path) == ["notes.tar", name_of(0), name_of(3)]
    with ShardCache(tmp_path, 2000):  # ... but a smaller maximum size is kept
        assert cached_files(tmp_path) == ["notes.tar", name_of(3)]


def test_an_incomplete_fetch_leaves_no_file(tmp_path: Path):
    folder = CacheFolder(str(tmp_path), 3000)

    def failing() -> Iterator[bytes]:
        yield bytes(100)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        put(folder, NAME, 200, blocks=failing(), wait=False)
    with pytest.raises(UserError, match="changed while it was fetched"):
        put(folder, NAME, 200, blocks=iter([bytes(100)]), wait=False)
    assert cached_files(tmp_path) == []


def test_shards_larger_than_the_cache_are_read_from_the_store(
    dataset: Dataset, remote: Dataset, flaky_s3: FlakyEndpoint, tmp_path: Path
):
    with ShardCache(tmp_path, 160_000) as cache:  # space for the smallest of the five, or for the index
        for _ in range(3):
            assert read_all(remote, cache) == read_all(dataset, None)
            wait_until(lambda: not cache._queue)
            assert sum((tmp_path / name).stat().st_size for name in cached_files(tmp_path)) <= 160_000
    large = {"rgb-train-000000", "rgb-train-000001", "rgb-train-000002", "rgb-val-000000"}
    assert not {name.rpartition("-")[0] for name in cached_files(tmp_path)} & large
    assert not [r for r in shard_bytes(flaky_s3) if "bytes=0-276479" in r]


def flip(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)


def test_a_damaged_copy_is_removed_and_the_store_is_read(
    dataset: Dataset, remote: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fill_cache(remote, tmp_path)
    index = Index(dataset, "rgb")
    (copy,) = tmp_path.glob("rgb-train-000000-*.tar")
    flip(copy, int(index.frames(0, np.array([7])).start[0]) + 50)
    with ShardCache(tmp_path, LARGE) as cache:
        assert read_all(remote, cache) == read_all(dataset, None)
        wait_until(lambda: not cache._queue)
    assert f"{copy} was damaged; it is fetched again" in capsys.readouterr().err.replace("\n", "")
    assert copy.read_bytes() == remote.storage.read("rgb/train-000000.tar")


def test_a_shard_that_is_damaged_in_the_store_is_reported(dataset: Dataset, remote: Dataset, tmp_path: Path):
    name = "rgb/train-000000.tar"
    byte = int(Index(dataset, "rgb").frames(0, np.array([7])).start[0])
    content = bytearray(remote.storage.read(name))
    content[byte + 50] ^= 4
    remote.storage.write(name, bytes(content))
    for cache in (None, ShardCache(tmp_path, LARGE)):
        reader = ClipReader(Index(replace(remote, cache=cache), "rgb"))
        for _ in range(2):
            with pytest.raises(CorruptFrame, match=rf"frame 7 of .*{name}.* from byte {byte}"):
                reader.read(0, np.arange(16))
            if cache:
                wait_until(
                    lambda: bool(list(tmp_path.glob("*.tar")))
                )  # a correct copy of the damaged shard: it is kept
        if cache:
            cache.close()


def test_a_recreated_shard_has_a_different_name(remote: Dataset, dataset: Dataset):
    index, same = Index(remote, "rgb"), Index(dataset, "rgb")
    assert [index.shard_identity(row) for row in range(18)] == [same.shard_identity(row) for row in range(18)]
    assert len({index.shard_identity(row) for row in range(18)}) == 5
    before = index.shard_identity(0)
    index._words = index._words.copy()
    index._words[index._places.crc32[1]] ^= 1
    assert index.shard_identity(0) != before


def test_a_full_disk_is_reported_once_and_the_store_is_read(
    dataset: Dataset, remote: Dataset, full_disk: Path, capsys: pytest.CaptureFixture[str]
):
    (full_disk / "other").write_bytes(bytes(900 << 10))
    with ShardCache(full_disk, LARGE) as cache:
        for _ in range(2):
            assert read_all(remote, cache) == read_all(dataset, None)
            wait_until(lambda: not cache._queue)
    printed = capsys.readouterr().err
    assert printed.count("cannot write to the cache") == printed.count("\n") == 1
    assert "No space left on device" in printed
    assert not [name for name in cached_files(full_disk) if name.endswith(".tar")]


def test_closing_cancels_what_is_being_fetched(remote: Dataset, tmp_path: Path):
    storage = Storage(remote.storage.root)
    cache = ShardCache(tmp_path, LARGE)
    storage.write("large", bytes(64 << 20))
    for number in range(20):
        cache.request(storage, "large", name_of(number))
    wait_until(lambda: (tmp_path / (TEMPORARY + name_of(0))).exists())
    started = time.monotonic()
    cache.close()
    assert time.monotonic() - started < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "shard-cache"]
    assert len(cached_files(tmp_path)) < 20
    cache.request(storage, "large", NAME)
    assert not [thread for thread in threading.enumerate() if thread.name == "shard-cache"]


def test_a_process_that_does_not_close_the_cache_ends_at_once(remote: Dataset, tmp_path: Path):
    script = """
import sys, time
from lgd.pipeline.storage.cache import ShardCache
from lgd.pipeline.storage.storage import Storage
storage, cache = Storage(sys.argv[1]), ShardCache(sys.argv[2], 1 << 40)
for number in range(40):
    cache.request(storage, "large", f"rgb-x-{number:032x}.tar")
print(time.time())
"""
    remote.storage.write("large", bytes(32 << 20))
    words = [sys.executable, "-c", script, remote.storage.address, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.time() - float(done.stdout) < 5
    assert len(cached_files(tmp_path)) < 40


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of the path is a file"):
        ShardCache(tmp_path / "file" / "cache", LARGE)


def test_a_replaced_index_is_fetched_again(remote: Dataset, tmp_path: Path):
    fill_cache(remote, tmp_path)
    time.sleep(1.1)  # the resolution of a store's times
    remote.storage.write("rgb/index.arrow", remote.storage.read("rgb/index.arrow"))
    with ShardCache(tmp_path, LARGE) as cache:
        Index(replace(remote, cache=cache), "rgb")
    assert len(list(tmp_path.glob("rgb-index-*.arrow"))) == 2


@pytest.mark.cluster
def test_training_and_evaluation_read_a_store_through_the_cache(dataset_folder: Path, remote: Dataset, tmp_path: Path):
    address, cache = remote.storage.address, ("--cache", tmp_path / "cache", "--cache-gb", 0.1)
    short = ("--transform.crop", 48, "--batch-size", 4, "--epochs", 0.5, "--num-workers", 1)
    run = tmp_path / "run"
    done = run_lgd("train", "nano-rgb", "--data", address, "--run", run, *short, *cache)
    assert done.returncode == 0, done.stderr
    assert "cache" not in (run / "config.json").read_text()
    assert (tmp_path / "cache").is_dir()
    scores = tmp_path / "scores.parquet"
    done = run_lgd("evaluate", run, "--data", address, "--clips", 1, "--out", scores, *cache)
    assert done.returncode == 0, done.stderr
    assert [name for name in cached_files(tmp_path / "cache") if "index" in name]
