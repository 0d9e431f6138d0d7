"""The index: positions of frames, checksums, damage, and its memory."""

import gc
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, index_name, open_dataset, shard_name
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.inspection.rebuild import rebuild_index
from lgd.pipeline.inspection.verify import verify
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import TEMPORARY


@pytest.fixture
def copy(dataset_folder: Path, tmp_path: Path) -> Dataset:
    """A dataset that a test may damage."""
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


def test_videos_without_a_label_are_rows_with_a_label_of_their_own(unlabelled_dataset: Dataset):
    index = Index(unlabelled_dataset, "rgb")
    train, test = index.rows("train"), index.rows("test")
    assert sorted(index.labels[train].tolist()) == [UNLABELLED, 0, 1]
    assert index.labels[test].tolist() == [UNLABELLED, UNLABELLED]
    labeled = index.labeled_rows("train")
    assert labeled.tolist() == [row for row in train.tolist() if index.labels[row] != UNLABELLED]
    with pytest.raises(UserError, match="no video of the split test has a label: choose another split"):
        index.labeled_rows("test")
    with pytest.raises(UserError, match="has no split 'absent'"):
        index.labeled_rows("absent")


def test_the_index_of_videos_without_a_label_can_be_rebuilt(unlabelled_dataset: Dataset, tmp_path: Path):
    shutil.copytree(unlabelled_dataset.storage.path(), tmp_path / "data")
    copy = open_dataset(tmp_path / "data")
    written = copy.storage.read(index_name("rgb"))
    copy.storage.delete(index_name("rgb"))
    rebuild_index(copy.storage, copy.specs["rgb"], shards(unlabelled_dataset, "rgb"))
    assert copy.storage.read(index_name("rgb")) == written
    assert verify(open_dataset(tmp_path / "data"), ["rgb", "flow"]) == []


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_webdataset_reads_every_shard_and_the_frames_decode_to_the_counts_in_the_table(dataset: Dataset, stream: str):
    frames = dict(zip(*(dataset.videos().column(c).to_pylist() for c in ("key", "frames")), strict=True))
    paths = [dataset.storage.path(shard_name(stream, shard)) for shard in shards(dataset, stream)]
    videos = 0
    for sample in webdataset.WebDataset(paths, shardshuffle=False).decode():
        metadata = sample["json"]
        sizes = np.cumsum([0, *metadata["bytes"]])
        pictures = [
            np.asarray(cv2.imdecode(np.frombuffer(sample["mjpeg"][a:b], np.uint8), cv2.IMREAD_UNCHANGED))
            for a, b in pairwise(sizes)
        ]
        assert len(pictures) == metadata["frames"] == frames[sample["__key__"]] - (stream == "flow")
        assert {picture.shape for picture in pictures} == {(64, 80, 3) if stream == "rgb" else (64, 160)}
        assert sample["__key__"].startswith(metadata["class"])
        assert dataset.classes[metadata["label"]] == metadata["class"]
        videos += 1
    assert videos == len(frames)


def test_flow_has_one_frame_fewer_than_rgb(dataset: Dataset):
    rgb, flow = Index(dataset, "rgb"), Index(dataset, "flow")
    rows = range(len(rgb))
    assert rgb.keys(rows) == flow.keys(rows)
    assert (rgb.lengths == flow.lengths + 1).all()


def test_the_positions_are_those_of_complete_jpegs(dataset: Dataset):
    index = Index(dataset, "rgb")
    for row in (0, len(index) - 1):
        content = dataset.storage.read(index.frames(row, np.array([0])).shard)
        where = index.frames(row, np.arange(index.lengths[row]))
        for start, end in zip(where.start, where.end, strict=True):
            assert content[start : start + 2] == b"\xff\xd8"
            assert content[end - 2 : end] == b"\xff\xd9"


def test_a_clip_reads_only_its_own_bytes(dataset: Dataset):
    reader = ClipReader(Index(dataset, "rgb"))
    reader.read(3, np.arange(7, 23))
    assert reader.bytes_read == reader.bytes_used > 0
    looped = reader.read(3, np.array([38, 39, 0, 1, 0]))
    assert (looped[2] == looped[4]).all()


def flip_bit(dataset: Dataset, stream: str, row: int, frame: int) -> str:
    """Flip one bit in the middle of a frame; return the path of its shard."""
    where = Index(dataset, stream).frames(row, np.array([frame]))
    path = Path(dataset.storage.path(where.shard))
    content = bytearray(path.read_bytes())
    content[int(where.start[0] + where.end[0]) // 2] ^= 4
    path.write_bytes(content)
    return where.shard


def test_one_flipped_bit_is_found_and_named(copy: Dataset):
    shard = flip_bit(copy, "flow", 5, 17)
    index = Index(copy, "flow")
    key, byte = index.key(5), int(index.frames(5, np.array([17])).start[0])
    ClipReader(index).read(5, np.arange(16))  # the frames before it are valid
    with pytest.raises(UserError, match=rf"frame 17 of {key} .*{shard}, from byte {byte}"):
        ClipReader(index).read(5, np.arange(10, 26))
    assert verify(copy, ["rgb"]) == []
    assert verify(copy, ["flow"]) == [f"{shard}: frame 17 of {key} is damaged (from byte {byte})"]


def test_verify_names_missing_and_truncated_shards(copy: Dataset):
    assert verify(copy, copy.streams) == []
    first, second = shards(copy, "rgb")[:2]
    Path(copy.storage.path(shard_name("rgb", first))).unlink()
    cut = Path(copy.storage.path(shard_name("rgb", second)))
    cut.write_bytes(cut.read_bytes()[:5000])
    problems = verify(copy, ["rgb"])
    assert any(first in problem for problem in problems)
    assert any(second in problem and "damaged" in problem for problem in problems)
    with pytest.raises(UserError, match=f"{first}.tar is missing"):
        ClipReader(Index(copy, "rgb")).read(0, np.arange(3))


def test_a_damaged_index_or_one_of_a_different_spec_is_refused(copy: Dataset):
    name = index_name("rgb")
    content = copy.storage.read(name)
    copy.storage.write(name, content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        Index(copy, "rgb")
    copy.storage.write(name, content.replace(copy.specs["rgb"].hash.encode(), b"0" * 16))
    with pytest.raises(UserError, match=r"different settings than those in dataset\.json"):
        Index(copy, "rgb")


def test_a_missing_split_is_named_with_the_existing_ones(dataset: Dataset):
    with pytest.raises(UserError, match=r"no split 'test' in rgb: choose from train, val"):
        Index(dataset, "rgb").rows("test")


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
