"""The output folder of preprocessing while other commands use it, and after killed ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.dataset.split_table import SplitTable, sorted_keys, write_split_table
from lgd.pipeline.dataset.splits import split_keys
from lgd.pipeline.dataset.tables import SPLITS
from lgd.pipeline.storage.lock import LOCK, locked
from lgd.pipeline.storage.lock_owner import LockOwner
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.limits import LimitOptions
from lgd.preprocessing.output import work_identity
from lgd.preprocessing.settings import PreprocessResources, Settings
from tests.preprocessing.test_job import files
from tests.support.in_process import preprocess_in_process


def test_a_dataset_that_another_command_creates_from_a_different_list_is_refused_with_its_name(
    videos: Path, tmp_path: Path
):
    with (
        locked(Storage(tmp_path / "data"), "lgd preprocess", "another list"),
        pytest.raises(UserError, match=r"is in use by `lgd preprocess` of .* \(process \d+"),
    ):
        preprocess_in_process(videos, tmp_path / "data", short_side=64, val_fraction=0.34)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_complete_dataset_is_complete_while_another_command_writes_to_it(videos: Path, dataset_folder: Path):
    with locked(Storage(dataset_folder), "lgd preprocess"):
        before = files(dataset_folder)
        preprocess_in_process(videos, dataset_folder, short_side=64, val_fraction=0.34)
        assert files(dataset_folder) == before


def test_locks_and_temporary_files_of_killed_commands_are_no_other_files_and_are_removed(videos: Path, tmp_path: Path):
    dead = replace(LockOwner.this_process("lgd preprocess", "list"), started=1, ticket=1)
    Storage(tmp_path).write(LOCK + dead.token, dead.to_json())
    (tmp_path / f"{TEMPORARY}{dead.token}-x-manifest.parquet").touch()
    preprocess_in_process(videos, tmp_path, short_side=32, val_fraction=0.34)
    assert [path for path in tmp_path.rglob(".*") if path.name != ".parts"] == []


def test_the_work_is_the_same_for_the_same_videos_specs_and_limits_only():
    video = Video("a", "a.mp4", 0, "x", "train")
    manifest, settings, resources = Manifest((video,), ("x",)), Settings(), PreprocessResources()
    specs = {stream: settings.spec(stream) for stream in ("rgb", "flow")}
    work = work_identity(manifest, specs, resources)
    assert work_identity(replace(manifest, annotations_format="csv"), specs, replace(resources, num_workers=2)) == work
    different = {
        work_identity(replace(manifest, videos=(replace(video, label=None),)), specs, resources),
        work_identity(manifest, {"rgb": specs["rgb"]}, resources),
        work_identity(manifest, specs, replace(resources, limits=LimitOptions(max_frames=9))),
        work,
    }
    assert len(different) == 4


def test_the_splits_of_official_lists_are_a_table_and_a_second_run_writes_nothing(videos: Path, tmp_path: Path):
    paths = sorted(path.relative_to(videos) for path in videos.rglob("*.mp4"))[:2]
    lists = tmp_path / "lists"
    lists.mkdir()
    for number, sides in ((1, "12"), (2, "10")):
        for path, side in zip(paths, sides, strict=True):
            with (lists / f"{path.parent}_test_split{number}.txt").open("a") as file:
                file.write(f"{path.stem}.avi {side} \n")

    def preprocess(out: Path, split_number: int | None = None) -> None:
        preprocess_in_process(videos, out, short_side=32, streams=["rgb"], annotations=lists, split_number=split_number)

    preprocess(tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    assert {name: counts.videos for name, counts in dataset.splits.items()} == {
        "all": 2,
        "train1": 1,
        "test1": 1,
        "train2": 1,
    }
    assert split_keys(dataset, "train1") == split_keys(dataset, "train2") == [paths[0].stem]
    assert [path.name for path in sorted((tmp_path / "data" / "rgb").glob("*.tar"))] == ["all-000000.tar"]
    before = files(tmp_path / "data")
    preprocess(tmp_path / "data")
    assert files(tmp_path / "data") == before
    (tmp_path / "data" / SPLITS).unlink()  # a command that was killed before it wrote the table
    preprocess(tmp_path / "data")
    assert open_dataset(tmp_path / "data").table_splits == dataset.table_splits
    Storage(tmp_path / "data").delete(SPLITS)
    key = split_keys(open_dataset(tmp_path / "data"), "all")
    write_split_table(Storage(tmp_path / "data"), SplitTable({"train1": sorted_keys(key)}))
    with pytest.raises(UserError, match=r"has a split train1 with other videos: .* --remove train1"):
        preprocess(tmp_path / "data")

    preprocess(tmp_path / "one", split_number=1)
    assert open_dataset(tmp_path / "one").splits.keys() == {"test", "train"}
    with pytest.raises(UserError, match=r"was created from one split of the lists .*: add --split-number"):
        preprocess(tmp_path / "one")
    preprocess(tmp_path / "one", split_number=1)
