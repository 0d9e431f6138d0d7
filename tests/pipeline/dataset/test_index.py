import gc
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import webdataset

from lgd.benchmarks.dev.index import Options, make_up, run
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, index_name, open_dataset, shard_name
from lgd.pipeline.dataset.index import Index, rebuild_index
from lgd.pipeline.inspection.describe import verify
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import TEMPORARY


@pytest.fixture
def copy(dataset_folder: Path, tmp_path: Path) -> Dataset:
    """A dataset that a test may spoil."""
    shutil.copytree(dataset_folder, tmp_path / "data")
    return open_dataset(tmp_path / "data")


def shards(dataset: Dataset, stream: str) -> list[str]:
    return sorted(set(Index(dataset, stream).shards()))


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_the_index_can_be_rebuilt_from_the_tars_alone(copy: Dataset, stream: str):
    written = copy.storage.read(index_name(stream))
    shutil.rmtree(copy.storage.path(f"{stream}/.parts"))
    copy.storage.delete(index_name(stream))
    names = [name.removesuffix(".tar") for name in copy.storage.names(stream)]
    rebuild_index(copy.storage, copy.specs[stream], names)
    assert copy.storage.read(index_name(stream)) == written


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_webdataset_reads_every_shard_and_the_frames_decode_to_the_counts_in_the_table(dataset: Dataset, stream: str):
    frames = dict(zip(*(dataset.videos().column(c).to_pylist() for c in ("key", "frames")), strict=True))
    paths = [dataset.storage.path(shard_name(stream, shard)) for shard in shards(dataset, stream)]
    seen = 0
    for sample in webdataset.WebDataset(paths, shardshuffle=False).decode():
        about = sample["json"]
        sizes = np.cumsum([0, *about["bytes"]])
        pictures = [
            np.asarray(cv2.imdecode(np.frombuffer(sample["mjpeg"][a:b], np.uint8), cv2.IMREAD_UNCHANGED))
            for a, b in pairwise(sizes)
        ]
        assert len(pictures) == about["frames"] == frames[sample["__key__"]] - (stream == "flow")
        assert {picture.shape for picture in pictures} == {(64, 80, 3) if stream == "rgb" else (64, 160)}
        assert sample["__key__"].startswith(about["class"])
        assert dataset.classes[about["label"]] == about["class"]
        seen += 1
    assert seen == len(frames)


def test_flow_has_one_frame_less_than_rgb(dataset: Dataset):
    rgb, flow = Index(dataset, "rgb"), Index(dataset, "flow")
    everything = range(len(rgb))
    assert rgb.keys(everything) == flow.keys(everything)
    assert (rgb.lengths == flow.lengths + 1).all()


def test_frames_are_read_by_their_bytes(dataset: Dataset):
    index = Index(dataset, "rgb")
    for row in (0, len(index) - 1):
        whole = dataset.storage.read(index.frames(row, np.array([0])).shard)
        where = index.frames(row, np.arange(index.lengths[row]))
        for start, end in zip(where.start, where.end, strict=True):
            assert whole[start : start + 2] == b"\xff\xd8"
            assert whole[end - 2 : end] == b"\xff\xd9"


def test_a_clip_costs_no_more_bytes_than_it_has(dataset: Dataset):
    reader = ClipReader(Index(dataset, "rgb"))
    reader.read(3, np.arange(7, 23))
    assert reader.bytes_read == reader.bytes_used > 0
    looped = reader.read(3, np.array([38, 39, 0, 1, 0]))
    assert (looped[2] == looped[4]).all()


def spoil(dataset: Dataset, stream: str, row: int, frame: int) -> str:
    """Flips one bit in the middle of a frame; returns the path of its shard."""
    where = Index(dataset, stream).frames(row, np.array([frame]))
    path = Path(dataset.storage.path(where.shard))
    content = bytearray(path.read_bytes())
    content[int(where.start[0] + where.end[0]) // 2] ^= 4
    path.write_bytes(content)
    return where.shard


def test_one_flipped_bit_is_found_and_named(copy: Dataset):
    shard = spoil(copy, "flow", 5, 17)
    index = Index(copy, "flow")
    key, byte = index.key(5), int(index.frames(5, np.array([17])).start[0])
    ClipReader(index).read(5, np.arange(16))  # the frames before it are sound
    with pytest.raises(UserError, match=rf"frame 17 of {key} .*{shard} from byte {byte} on"):
        ClipReader(index).read(5, np.arange(10, 26))
    assert verify(copy, ["rgb"]) == []
    assert verify(copy, ["flow"]) == [f"{shard}: {key} is damaged in frame 17, from byte {byte} on"]


def test_verify_names_what_is_missing_or_cut(copy: Dataset):
    assert verify(copy, copy.streams) == []
    first, second = shards(copy, "rgb")[:2]
    Path(copy.storage.path(shard_name("rgb", first))).unlink()
    cut = Path(copy.storage.path(shard_name("rgb", second)))
    cut.write_bytes(cut.read_bytes()[:5000])
    problems = verify(copy, ["rgb"])
    assert any(first in problem for problem in problems)
    assert any(second in problem and "damaged" in problem for problem in problems)
    with pytest.raises(UserError, match=f"{first}.tar is gone"):
        ClipReader(Index(copy, "rgb")).read(0, np.arange(3))


def test_an_index_of_another_recipe_or_a_damaged_one_is_refused(copy: Dataset):
    name = index_name("rgb")
    content = copy.storage.read(name)
    copy.storage.write(name, content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        Index(copy, "rgb")
    copy.storage.write(name, content.replace(copy.specs["rgb"].hash.encode(), b"0" * 16))
    with pytest.raises(UserError, match="another recipe"):
        Index(copy, "rgb")


def test_a_split_that_is_not_there_is_named_with_those_that_are(dataset: Dataset):
    with pytest.raises(UserError, match=r"no split 'test' in rgb: it has train, val"):
        Index(dataset, "rgb").rows("test")


def test_every_row_is_found_in_batches_of_any_length(tmp_path: Path):
    for videos, per_shard in ((1, 1), (13, 5), (64, 3)):
        dataset = make_up(tmp_path / f"{videos}", Options(videos=videos, frames=7, videos_per_shard=per_shard))
        index = Index(dataset, "rgb")
        with pa.memory_map(dataset.storage.path(index_name("rgb"))) as file:
            table = pa.ipc.open_file(file).read_all()
        assert len(index) == table.num_rows == videos
        assert index.keys(range(videos)) == table.column("key").to_pylist()
        for name, column in (("label", index.labels), ("width", index.widths), ("height", index.heights)):
            assert table.column(name).to_pylist() == column.tolist()
        splits = table.column("split").to_pylist()
        for split in set(splits):
            assert index.rows(split).tolist() == [row for row in range(videos) if splits[row] == split]
        for row, about in enumerate(table.to_pylist()):
            where = index.frames(row, np.arange(7))
            assert where.shard == shard_name("rgb", about["shard"])
            assert where.end.tolist() == [about["offset"] + end for end in about["ends"]]
            assert where.start.tolist() == [about["offset"], *where.end[:-1].tolist()]
            assert where.crc32.tolist() == about["crc32"]
        assert {key: row for keys in index.shards().values() for key, row in keys.items()} == {
            key: row for row, key in enumerate(index.keys(range(videos)))
        }


def test_the_size_of_the_index_does_not_become_memory_of_the_process():
    result = run(Options(videos=20_000, videos_per_shard=100))
    assert result["index_mb"] > 40
    assert result["private_mb"] < 20
    assert result["open_s"] + result["order_s"] < 2
    assert max(result["microseconds_a_clip"].values()) < 1000


def test_a_remote_index_is_mapped_and_leaves_no_file(
    dataset: Dataset, remote: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    index, local = Index(remote, "rgb"), Index(dataset, "rgb")
    assert list(tmp_path.iterdir()) == []
    assert f"{tmp_path}/{TEMPORARY}" in Path("/proc/self/maps").read_text()
    assert index.keys(range(len(index))) == local.keys(range(len(local)))
    del index
    gc.collect()
    assert f"{tmp_path}/{TEMPORARY}" not in Path("/proc/self/maps").read_text()
