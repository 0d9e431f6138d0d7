"""Videos and datasets in an object store are what they are in a local folder."""

import tempfile
from pathlib import Path

import pytest
import torch

from lgd import cli
from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.loading.loader import train_loader
from lgd.pipeline.loading.transform import Transform
from lgd.pipeline.storage.storage import BLOCK_BYTES, Storage
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.video.files import local_file
from lgd.preprocessing.video.rejections import Rejected
from tests.preprocessing.annotations.test_read import KINETICS, csv, put


def uploaded(folder: Path, address: str) -> Storage:
    storage = Storage(address)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write(path.relative_to(folder).as_posix(), path.read_bytes())
    storage.fs.create_dir(storage.path("empty folder"))  # a mark, as other programs leave them
    return storage


def class_folders(lists: Path) -> None:
    return None


def plain_csv(lists: Path) -> Path:
    rows = ["run/a b.mp4,run", ".hidden/x.mp4,run", "jump/c.avi,jump", "jump/gone.mp4,jump", "jump/notes.txt,jump"]
    return csv(lists, "\n".join(["path,label", *rows]))


def kinetics(lists: Path) -> Path:
    rows = ["air drumming,-aBc_123xyz,5,15,train,0", "run,abcdefghijk,1,3,val,0", "run,zzzzzzzzzzz,1,3,val,0"]
    csv(lists, KINETICS + rows[0], "train.csv")
    csv(lists, KINETICS + "\n".join(rows[1:]), "val.csv")
    return lists


def ucf101(lists: Path) -> Path:
    csv(lists, "jump/c.avi 1\njump/gone.avi 1\n", "trainlist01.txt")
    csv(lists, "run/abcdefghijk.avi\n", "testlist01.txt")
    return lists


def hmdb51(lists: Path) -> Path:
    csv(lists, "c.avi 1\nd.avi 2\ngone.avi 1\n", "jump_test_split1.txt")
    return lists


@pytest.mark.parametrize("annotations", [class_folders, plain_csv, kinetics, ucf101, hmdb51])
def test_the_manifest_is_that_of_the_same_local_folder(s3: str, tmp_path: Path, annotations):
    (tmp_path / "lists").mkdir()
    names = ["run/a b.mp4", "run/abcdefghijk.webm", "jump/c.avi", "jump/d.mp4", "jump/notes.txt", "run/.a.mp4"]
    videos = put(tmp_path / "videos", *names, ".hidden/x.mp4", "air_drumming/-aBc_123xyz_000005_000015.mp4")
    storage = uploaded(videos, s3)
    lists = annotations(tmp_path / "lists")
    local = read_manifest(videos, lists)
    assert read_manifest(storage, lists) == local
    assert read_manifest(s3, lists).fingerprint() == local.fingerprint()
    if lists:
        assert {video.missing for video in local.videos} == {True, False}


def test_a_list_may_hold_addresses_inside_the_folder_and_none_outside(s3: str, tmp_path: Path):
    storage = uploaded(put(tmp_path / "videos", "run/a.mp4"), s3)
    assert read_manifest(storage, csv(tmp_path, f"path,label\n{s3}/run/a.mp4,x\n")).videos[0].path == "run/a.mp4"
    for path in ("../other/run/a.mp4", f"{s3}/../a.mp4", "/run/a.mp4"):
        with pytest.raises(UserError, match="a path that leaves s3://"):
            read_manifest(storage, csv(tmp_path, f"path,label\nrun/a.mp4,x\n{path},x\n"))


def test_a_folder_of_videos_that_is_none_is_one_line(s3: str):
    Storage(s3).write("file", b"")
    for address, message in [
        (f"{s3}/nowhere", "nowhere is not there"),
        (f"{s3}/file", "file is not a folder"),
        (s3, "holds no videos in class folders"),
    ]:
        with pytest.raises(UserError, match=message):
            read_manifest(address)
    with pytest.raises(StoreError, match="no such bucket"):
        read_manifest("s3://nowhere/videos")


def test_a_remote_video_is_a_local_file_for_as_long_as_it_is_needed(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage(s3)
    content = bytes(range(256)) * (BLOCK_BYTES // 256) + b"end"
    storage.write("run/a.mp4", content)
    with local_file(storage, "run/a.mp4") as file:
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InterruptedError), local_file(storage, "run/a.mp4"):
        raise InterruptedError
    with pytest.raises(Rejected, match=r"missing: the file run/gone.mp4 does not exist"), local_file(storage, "run/gone.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_local_video_is_its_own_file(tmp_path: Path):
    with local_file(Storage(put(tmp_path, "run/a.mp4")), "run/a.mp4") as file:
        assert file == tmp_path / "run/a.mp4"


def test_a_killed_and_resumed_job_from_store_to_store_makes_the_bytes_of_a_local_one(
    videos: Path, dataset_folder: Path, s3: str
):
    uploaded(videos, f"{s3}/videos")
    remote = Storage(f"{s3}/data")
    job = ("preprocess", f"{s3}/videos", "--out", f"{s3}/data", "--short-side", 64, "--streams", "rgb")
    run_lgd_until(lambda: len(remote.names("rgb/.parts")) >= 1, *job, "--val-fraction", 0.34)
    assert open_dataset(remote).streams == []
    done = run_lgd(*job, "--val-fraction", 0.34)
    assert done.returncode == 0, done.stderr
    # The local dataset has flow as well, which these two files say; all others must be the same.
    with_flow = {"dataset.json", "videos.parquet"}
    local = [path.relative_to(dataset_folder).as_posix() for path in dataset_folder.rglob("*") if path.is_file()]
    local = [name for name in local if not name.startswith("flow/")]
    assert remote.list_all() == sorted(local)
    different = [name for name in local if remote.read(name) != (dataset_folder / name).read_bytes()]
    assert set(different) == with_flow
    keys = open_dataset(dataset_folder).videos(["key", "frames", "rgb_bytes"])
    assert open_dataset(remote).videos(["key", "frames", "rgb_bytes"]) == keys

    assert cli.inspect(f"{s3}/data", verify=True).document["problems"] == []
    (ours,), (locals_,) = (
        train_loader(open_dataset(place), "rgb", batch_size=4, steps=range(1), transform=Transform(crop=48))
        for place in (remote, dataset_folder)
    )
    assert (ours.key, ours.position) == (locals_.key, locals_.position)
    assert torch.equal(ours.video, locals_.video)


def test_other_files_in_the_folder_of_a_new_dataset_are_left_alone(videos: Path, s3: str):
    Storage(s3).write("mine", b"")
    with pytest.raises(UserError, match="contains other files and is not a dataset"):
        cli.preprocess(str(videos), s3)
    assert Storage(s3).list_all() == ["mine"]


def test_a_missing_bucket_for_the_dataset_is_one_line(videos: Path, s3: str):
    with pytest.raises(StoreError, match="there is no such bucket: create it"):
        cli.preprocess(str(videos), "s3://nowhere/data")
