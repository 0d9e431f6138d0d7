"""`lgd inspect --verify`: one line per problem, and none for a valid dataset."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from lgd.pipeline.console.errors import StoreError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset, shard_name
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.tables import write_table
from lgd.pipeline.inspection import verify as verify_module
from lgd.pipeline.inspection.verify import verify


@pytest.fixture
def copy(dataset_folder: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(dataset_folder, tmp_path / "data")
    return open_dataset(tmp_path / "data")


def change(dataset: Dataset, name: str, first: int, content: bytes) -> None:
    """Overwrite bytes of a file of the dataset."""
    old = dataset.storage.read(name)
    dataset.storage.write(name, old[:first] + content + old[first + len(content) :])


def test_a_valid_dataset_has_no_problems(copy: Dataset):
    assert verify(copy, copy.streams) == []


def test_a_changed_byte_is_named_with_video_frame_and_position(copy: Dataset):
    index = Index(copy, "flow")
    where = index.frames(5, np.array([17]))
    start = int(where.start[0])
    change(copy, where.shard, start + 100, bytes([copy.storage.read(where.shard)[start + 100] ^ 1]))
    problem = f"{where.shard}: frame 17 of {index.key(5)} is damaged (from byte {start})"
    assert verify(copy, ["rgb", "flow"]) == [problem]
    assert verify(copy, ["rgb"]) == []


def test_a_missing_and_a_truncated_shard_are_named(copy: Dataset):
    first, second = sorted(Index(copy, "rgb").shards())[:2]
    copy.storage.delete(shard_name("rgb", first))
    copy.storage.write(shard_name("rgb", second), copy.storage.read(shard_name("rgb", second))[:5000])
    missing, truncated = sorted(verify(copy, ["rgb"]))
    assert missing.startswith(f"rgb/{first}.tar: ")
    assert truncated.startswith(f"rgb/{second}.tar: ")
    assert "damaged" in truncated


def test_an_exchanged_shard_is_compared_video_by_video(copy: Dataset):
    index = Index(copy, "rgb")
    (first, rows), (second, other_rows) = list(index.shards().items())[:2]
    copy.storage.write(shard_name("rgb", first), copy.storage.read(shard_name("rgb", second)))
    assert sorted(verify(copy, ["rgb"])) == sorted(
        [f"rgb/{first}.tar: {key} is in the index, but not in the shard" for key in rows]
        + [f"rgb/{first}.tar: {key} is in the shard, but not in the index" for key in other_rows]
    )


def test_tables_with_different_videos_are_named(copy: Dataset):
    videos = copy.videos()
    key = videos["key"][3].as_py()
    write_table(copy.storage, "videos.parquet", videos.filter(pc.not_equal(videos["key"], key)))
    assert verify(copy, ["rgb", "flow"]) == [
        "videos.parquet (17 videos) and rejected.parquet (0) together do not have the same videos as manifest.parquet "
        "(18)",
        f"rgb: {key} is in the index, but not in videos.parquet",
        f"flow: {key} is in the index, but not in videos.parquet",
    ]


def test_an_unreachable_store_is_not_a_problem_of_the_dataset(copy: Dataset, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*arguments: object) -> None:
        raise StoreError("storage is unreachable")

    monkeypatch.setattr(verify_module, "scan_shard", unreachable)
    with pytest.raises(StoreError):
        verify(copy, ["rgb"])
