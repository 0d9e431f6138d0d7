"""Reading a dataset: which one it is, and how fast."""

import hashlib
import os
import shutil
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from lgd.clusters.doctor import examine, reading
from lgd.clusters.doctor.examine import open_data
from lgd.clusters.doctor.rows import ABSENT, OK, SLOW, WRONG, Row
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage


def rows_of(address: str | Path, digest: str = "", first: int = 0) -> dict[str, Row]:
    data = open_data(str(address))
    rows = reading.reading_rows(data.address, digest or data.digest, data.shards, first=first)
    return {row.name: row for row in rows}


def test_a_local_dataset_is_read_and_not_changed(dataset_folder: Path):
    before = {path: path.stat().st_mtime_ns for path in dataset_folder.rglob("*")}
    rows = rows_of(dataset_folder, first=1000)
    assert {name: row.verdict for name, row in rows.items()} == {
        "data": OK,
        "data, latency": OK,
        "data, read": ABSENT,
        "data, read cached": ABSENT,
        "data, random 64 KiB": ABSENT,
    }
    assert rows["data"].figure.startswith("the same dataset.json (")
    assert "put is not tested" in rows["data, latency"].figure
    assert rows["data, read"].figure.endswith("of the shards are too little for a measurement")
    assert {path: path.stat().st_mtime_ns for path in dataset_folder.rglob("*")} == before


def test_a_dataset_in_an_object_store_is_read(dataset_folder: Path, s3: str):
    storage = Storage(s3)
    for name in ("dataset.json", *(f"rgb/{path.name}" for path in (dataset_folder / "rgb").glob("*.tar"))):
        storage.write(name, (dataset_folder / name).read_bytes())
    rows = rows_of(s3)
    assert list(rows) == ["data", "data, latency", "data, read"]
    assert rows["data"].figure == "the same dataset.json (s3)"
    assert rows_of(s3, digest="other")["data"].verdict == WRONG
    storage.delete("dataset.json")
    (row,) = reading.reading_rows(storage.address, "digest", (), first=0)
    assert row.verdict == WRONG


def test_another_dataset_at_the_same_path_is_wrong(dataset_folder: Path):
    row = rows_of(dataset_folder, digest=hashlib.sha256(b"other").hexdigest())["data"]
    assert row.verdict == WRONG
    assert "this node sees another dataset" in row.advice


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_node_that_does_not_see_the_dataset_is_wrong(dataset_folder: Path, tmp_path: Path, left: str):
    data = open_data(str(dataset_folder))
    folder = tmp_path / "mount"
    if left == "an empty folder":
        folder.mkdir()
    rows = list(reading.reading_rows(str(folder), data.digest, data.shards, first=0))
    assert rows[0].verdict == WRONG
    assert "mount the storage at the same path on every node" in rows[0].advice


@pytest.mark.parametrize("kind", ["missing", "a folder of videos"])
def test_a_folder_that_is_not_a_dataset_is_an_error_of_one_line(tmp_path: Path, kind: str):
    if kind != "missing":
        (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"data is not a dataset \(dataset.json is missing\): check --data"):
        open_data(str(tmp_path / "data"))


@pytest.mark.parametrize(("maximum", "shards"), [(100, 4), (4, 4), (3, 2), (1, 1)])
def test_shards_from_all_parts_of_a_large_dataset_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maximum: int, shards: int
):
    monkeypatch.setattr(examine, "MAX_SHARDS", maximum)
    (tmp_path / "rgb").mkdir()
    (tmp_path / "dataset.json").write_text("{}")
    for number in range(4):
        (tmp_path / "rgb" / f"train-{number:06}.tar").write_bytes(b"shard")
    found = open_data(str(tmp_path)).shards
    assert len(found) == shards
    assert found[0] == ("rgb/train-000000.tar", 5)


def test_an_incomplete_dataset_without_shards(dataset_folder: Path, tmp_path: Path):
    shutil.copy(dataset_folder / "dataset.json", tmp_path)
    assert rows_of(tmp_path)["data, read"].figure == "no shards"


@pytest.mark.parametrize(
    ("megabytes", "seconds", "verdict", "value"),
    [(100, 10.0, SLOW, 10.0), (1000, 10.0, OK, 100.0), (5, 0.1, ABSENT, None), (5, 4.0, SLOW, 1.25)],
)
def test_the_speed_is_judged_if_enough_was_read(megabytes: int, seconds: float, verdict: str, value: float | None):
    """A slow store delivers little in the time limit."""
    row = reading.read_row("data, read", megabytes * 10**6, seconds, how=", 4 reads at a time")
    assert (row.verdict, row.value) == (verdict, value)
    assert value is None or row.figure.endswith(f"({megabytes} MB, 4 reads at a time)")


def test_shards_of_the_usual_size_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One file of 4 MB, of which the limits say that it is enough."""
    monkeypatch.setattr(reading, "LEAST_BYTES", 1 << 20)
    shard = tmp_path / "train-000000.tar"
    shard.write_bytes(os.urandom(4 << 20))
    for cold in (True, False):
        row = reading.local_speed([str(shard)], cold=cold)
        assert (row.verdict, row.unit) == (OK, "MB/s"), row
        assert row.figure.endswith("(4 MB)")
    row = reading.random_reads(str(shard))
    assert (row.verdict, row.unit) == (OK, "ms"), row
    row = reading.remote_speed(pafs.LocalFileSystem(), str(tmp_path), [(shard.name, 4 << 20)])
    assert (row.verdict, row.unit) == (OK, "MB/s"), row


def test_a_slow_store_is_slow():
    row = reading.latency(lambda: None, lambda: b"", limit_s=-1.0)
    assert row.verdict == SLOW
    assert row.unit == "ms"


MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /data rw shared:2 - nfs4 server:/export rw
31 30 0:41 / /data/my\\040sets rw - lustre mds:/fs rw
32 22 0:42 / /data2 rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/data/set", "nfs4"),
        ("/data", "nfs4"),
        ("/data/my sets/a", "lustre"),
        ("/data2/x", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str):
    assert reading.file_system(path, MOUNTS) == kind
