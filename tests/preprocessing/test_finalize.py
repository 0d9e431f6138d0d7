from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.finalize import finalize_dataset
from lgd.preprocessing.plan import ShardPlan
from lgd.preprocessing.shard_tar import read_shard
from tests.preprocessing.conftest import SPECS, create, empty_dataset


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def new_dataset(folder: Path, plan: ShardPlan) -> tuple[Dataset, Manifest]:
    dataset = Dataset(empty_dataset(folder), "", ("up",), len(plan.videos), SPECS)
    dataset.save()
    return dataset, Manifest(plan.videos, ("up",))


def test_every_listed_video_is_a_row_of_one_of_the_two_tables(
    folder: Path, plan: ShardPlan, tmp_path: Path, pool: Executor
):
    dataset, manifest = new_dataset(tmp_path, plan)
    create(dataset.storage, folder, plan)
    finalize_dataset(dataset, manifest, [plan], pool=pool)
    opened = open_dataset(dataset.storage)
    videos, rejected = opened.videos().to_pylist(), opened.rejected().to_pylist()
    assert [row["key"] for row in videos] == [v.key for v in plan.videos if v.key not in ("up-broken", "absent")]
    assert {row["key"]: row["reason"] for row in rejected} == {"up-broken": "unreadable", "absent": "missing"}
    assert {(row["class"], row["shard"], row["frames"], row["width"]) for row in videos} == {("up", plan.name, 40, 40)}
    assert all(row["rgb_bytes"] > 0 and row["flow_bytes"] > 0 and 0 <= row["flow_saturated"] <= 1 for row in videos)
    assert set(opened.streams) == {"rgb", "flow"}
    assert opened.summary == {
        "videos": 3,
        "rejected": 2,
        "reasons": {"missing": 1, "unreadable": 1},
        "frames": 120,
        "splits": {"train": 3},
        "bytes": {stream: sum(row[f"{stream}_bytes"] for row in videos) for stream in SPECS},
    }


def test_a_stream_with_an_incomplete_shard_gets_no_index(folder: Path, plan: ShardPlan, tmp_path: Path, pool: Executor):
    dataset, manifest = new_dataset(tmp_path, plan)
    create(dataset.storage, folder, plan)
    finalize_dataset(dataset, manifest, [plan], pool=pool)
    dataset.storage.delete(f"flow/{plan.name}.tar")
    finalize_dataset(dataset, manifest, [plan], pool=pool)
    assert list(open_dataset(dataset.storage).streams) == ["rgb"]
    assert not dataset.storage.exists("flow/index.arrow")


def test_a_manifest_with_more_videos_than_the_shards_is_an_error(
    folder: Path, plan: ShardPlan, tmp_path: Path, pool: Executor
):
    dataset, manifest = new_dataset(tmp_path, plan)
    create(dataset.storage, folder, plan)
    longer = Manifest((*manifest.videos, manifest.videos[0]), manifest.classes)
    with pytest.raises(RuntimeError, match=r"3 videos \+ 2 rejected videos are not the 6 videos of the manifest"):
        finalize_dataset(dataset, longer, [plan], pool=pool)
    assert list(open_dataset(dataset.storage).streams) == []


def test_videos_without_a_label_have_nulls_in_the_tables_and_in_the_shards(unlabelled_dataset: Dataset):
    rows = [row for row in unlabelled_dataset.videos().to_pylist() if row["split"] == "test"]
    assert [(row["label"], row["class"]) for row in rows] == [(None, None)] * 2
    assert unlabelled_dataset.summary["unlabelled"] == {"test": 2, "train": 1}
    counts = [(unlabelled_dataset.labeled(s), unlabelled_dataset.unlabelled(s)) for s in ("train", "val", "test", "x")]
    assert counts == [(2, 1), (1, 0), (0, 2), (0, 0)]
    samples = [video.description for video in read_shard(unlabelled_dataset.storage, "rgb", "test-000000")]
    assert [(sample["label"], sample["class"]) for sample in samples] == [(None, None)] * 2


def test_the_summary_does_not_mention_labels_if_every_video_has_one(dataset: Dataset):
    assert "unlabelled" not in dataset.summary
    assert (dataset.labeled("train"), dataset.unlabelled("train")) == (12, 0)
