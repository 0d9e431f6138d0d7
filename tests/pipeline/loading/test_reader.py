"""Bytes of clips: no more than needed, the same from every storage, and complete despite faults of the store."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lgd.clusters.testbed.processes import free_port
from lgd.clusters.testbed.s3_server import s3_server
from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading import reader as reader_module
from lgd.pipeline.loading.clip_order import Sampling, TrainOrder
from lgd.pipeline.loading.loader import Batch, train_loader
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.loading.transform import Transform
from lgd.pipeline.storage import retries
from tests.pipeline.storage.test_s3_dataset import upload
from tests.support.flaky_s3 import FlakyEndpoint, s3_url


def shard_requests(flaky_s3: FlakyEndpoint) -> list[str]:
    return [r for r in flaky_s3[0].received.elements() if r.startswith("GET") and ".tar" in r]


def clips(index: Index, sampling: Sampling, count: int) -> list[tuple[int, np.ndarray]]:
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], sampling)
    return [(clip.row, clip.frames) for clip in map(order.clip, range(count))]


SAMPLINGS = [Sampling(), Sampling(stride=2), Sampling(segments=True), Sampling(frames=128)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_local_clip_reads_only_the_bytes_of_its_frames(dataset: Dataset, sampling: Sampling):
    reader = ClipReader(Index(dataset, "rgb"))
    used = 0
    for row, numbers in clips(reader.index, sampling, 24):
        distinct = np.unique(numbers)
        where = reader.index.frames(row, distinct)
        used += int((where.end - where.start).sum())
        assert len(reader.read(row, numbers)) == sampling.frames
    assert reader.bytes_read == reader.bytes_used == used


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_remote_clip_is_one_request_per_group_of_close_frames_with_the_same_bytes(
    dataset: Dataset, remote: Dataset, flaky_s3: FlakyEndpoint, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
):
    local, remote_reader = ClipReader(Index(dataset, "rgb")), ClipReader(Index(remote, "rgb"))
    requested = clips(local.index, sampling, 3)
    for row, numbers in requested:
        assert all(map(np.array_equal, local.read(row, numbers), remote_reader.read(row, numbers)))
    assert len(shard_requests(flaky_s3)) == 3
    assert remote_reader.bytes_read >= remote_reader.bytes_used == local.bytes_used
    monkeypatch.setattr(reader_module, "GAP_BYTES", 0)
    flaky_s3[0].received.clear()
    remote_reader = ClipReader(Index(remote, "rgb"))
    row, numbers = requested[0]
    remote_reader.read(row, numbers)
    groups = 1 + int((np.diff(np.unique(numbers)) > 1).sum())
    assert len(shard_requests(flaky_s3)) == groups
    assert remote_reader.bytes_read == remote_reader.bytes_used


def test_the_byte_counts_are_correct_with_many_threads(dataset: Dataset):
    reader, alone = ClipReader(Index(dataset, "rgb")), ClipReader(Index(dataset, "rgb"))
    requested = clips(reader.index, Sampling(segments=True), 200)
    for clip in requested:
        alone.read(*clip)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda clip: reader.read(*clip), requested))
    assert (reader.bytes_read, reader.bytes_used) == (alone.bytes_read, alone.bytes_used)


def test_only_a_few_files_are_open_and_none_at_the_end(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dataset = open_dataset(shutil.copytree(dataset_folder, tmp_path / "data"))  # no other test reads this copy

    def open_shards() -> int:
        files = [os.path.realpath(f"/proc/self/fd/{handle}") for handle in os.listdir("/proc/self/fd")]
        return sum(file.startswith(str(tmp_path)) and file.endswith(".tar") for file in files)

    monkeypatch.setattr(reader_module, "OPEN_FILES", 2)
    reader = ClipReader(Index(dataset, "rgb"))
    requested = clips(reader.index, Sampling(), 60)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(reader.read, *zip(*requested, strict=True)))
    assert len({reader.index.shard(row) for row, _ in requested}) > 2
    assert open_shards() == 2
    del reader
    assert open_shards() == 0


def test_temporary_faults_are_retried(remote: Dataset, dataset: Dataset, flaky_s3: FlakyEndpoint, fast_retries: None):
    flaky_s3[0].failures, flaky_s3[0].failing = 3, "(GET|HEAD) .*tar"  # 503, half of the bytes, 503
    local, remote_reader = ClipReader(Index(dataset, "rgb")), ClipReader(Index(remote, "rgb"))
    for row, numbers in clips(local.index, Sampling(), 2):
        assert all(map(np.array_equal, local.read(row, numbers), remote_reader.read(row, numbers)))
    assert max(flaky_s3[0].received.values()) == 4


def test_a_shard_that_is_missing_from_the_store_is_named(remote: Dataset):
    index = Index(remote, "rgb")
    remote.storage.delete(index.shard(0))
    with pytest.raises(UserError, match=r"train-000000.tar.* is missing: rerun `lgd preprocess` to recreate it"):
        ClipReader(index).read(0, np.arange(3))


def batches(dataset: Dataset, steps: int) -> list[Batch]:
    return list(train_loader(dataset, "rgb", 4, steps=range(steps), transform=Transform(crop=48)))


def test_no_sample_is_lost_when_the_server_is_killed_and_replaced(
    dataset: Dataset, dataset_folder: Path, s3_environment: None, flaky_s3: FlakyEndpoint, fast_retries: None
):
    """A second server with the same data replaces the killed one, which loses its data."""
    kind, endpoint = flaky_s3
    ports = free_port(), free_port()
    with s3_server(ports[0]) as first:
        kind.upstream = f"http://127.0.0.1:{ports[0]}"
        upload(dataset_folder, s3_url(kind.upstream))
        found = []
        with s3_server(ports[1]):
            second = f"http://127.0.0.1:{ports[1]}"
            upload(dataset_folder, s3_url(second))

            def replace_server() -> None:
                time.sleep(0.3)
                kind.upstream = second

            started = threading.Thread(target=replace_server)
            for batch in train_loader(
                open_dataset(s3_url(endpoint)), "rgb", 4, steps=range(12), transform=Transform(crop=48)
            ):
                found.append(batch)
                if len(found) == 3:
                    first.kill()
                    first.wait()
                    started.start()
            started.join()
    assert max(kind.received.values()) > 1
    expected = batches(dataset, 12)
    assert [(batch.position, batch.key) for batch in found] == [(batch.position, batch.key) for batch in expected]
    assert all(torch.equal(a.video, b.video) for a, b in zip(found, expected, strict=True))


@pytest.mark.s3
def test_a_server_that_stays_unreachable_is_one_line(
    dataset_folder: Path, s3_environment: None, fast_retries: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    port = free_port()
    with s3_server(port) as server:
        storage = upload(dataset_folder, s3_url(f"http://127.0.0.1:{port}"))
        loader = train_loader(open_dataset(storage), "rgb", 4, steps=range(1000), transform=Transform(crop=48))
        batches = iter(loader)
        next(batches)
        server.kill()
        server.wait()
        with pytest.raises(StoreError, match=r"rgb/train-00000\d.tar.*: storage is unreachable") as raised:
            list(batches)
    assert "\n" not in str(raised.value)
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clip-reader")]
