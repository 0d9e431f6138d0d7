"""Videos and datasets in an object store are the same as in a local folder."""

import tempfile
from pathlib import Path

import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.commands.dataset_commands import inspect, preprocess
from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.inspection.options import InspectOptions
from lgd.pipeline.loading.loader import train_loader
from lgd.pipeline.loading.transform import Transform
from lgd.pipeline.storage.storage import BLOCK_BYTES, Storage
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.video.files import local_file
from lgd.preprocessing.video.rejections import Rejected
from tests.preprocessing.annotations.conftest import create_files, write_file
from tests.preprocessing.annotations.test_csv_lists import KINETICS


def upload(folder: Path, address: str) -> Storage:
    storage = Storage(address)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write(path.relative_to(folder).as_posix(), path.read_bytes())
    storage.fs.create_dir(storage.path("empty folder"))  # an object that marks a folder, as other programs create them
    return storage


def class_folders(lists: Path) -> None:
    return None


def plain_csv(lists: Path) -> Path:
    rows = ["run/a b.mp4,run", ".hidden/x.mp4,run", "jump/c.avi,jump", "jump/missing.mp4,jump", "jump/notes.txt,jump"]
    return write_file(lists, "\n".join(["path,label", *rows]))


def kinetics(lists: Path) -> Path:
    rows = ["air drumming,-aBc_123xyz,5,15,train,0", "run,abcdefghijk,1,3,val,0", "run,zzzzzzzzzzz,1,3,val,0"]
    write_file(lists, KINETICS + rows[0], "train.csv")
    write_file(lists, KINETICS + "\n".join(rows[1:]), "val.csv")
    return lists


def ucf101(lists: Path) -> Path:
    write_file(lists, "jump/c.avi 1\njump/missing.avi 1\n", "trainlist01.txt")
    write_file(lists, "run/abcdefghijk.avi\n", "testlist01.txt")
    return lists


def hmdb51(lists: Path) -> Path:
    write_file(lists, "c.avi 1\nd.avi 2\nmissing.avi 1\n", "jump_test_split1.txt")
    return lists


@pytest.mark.parametrize("annotations", [class_folders, plain_csv, kinetics, ucf101, hmdb51])
def test_the_manifest_is_the_same_as_of_the_local_folder(s3: str, tmp_path: Path, annotations):
    (tmp_path / "lists").mkdir()
    names = ["run/a b.mp4", "run/abcdefghijk.webm", "jump/c.avi", "jump/d.mp4", "jump/notes.txt", "run/.a.mp4"]
    videos = create_files(tmp_path / "videos", *names, ".hidden/x.mp4", "air_drumming/-aBc_123xyz_000005_000015.mp4")
    storage = upload(videos, s3)
    lists = annotations(tmp_path / "lists")
    local = read_manifest(videos, lists)
    assert read_manifest(storage, lists) == local
    assert read_manifest(s3, lists).fingerprint() == local.fingerprint()
    if lists:
        assert {video.missing for video in local.videos} == {True, False}


def test_a_list_may_contain_addresses_inside_the_folder_only(s3: str, tmp_path: Path):
    storage = upload(create_files(tmp_path / "videos", "run/a.mp4"), s3)
    assert read_manifest(storage, write_file(tmp_path, f"path,label\n{s3}/run/a.mp4,x\n")).videos[0].path == "run/a.mp4"
    for path in ("../other/run/a.mp4", f"{s3}/../a.mp4", "/run/a.mp4"):
        with pytest.raises(UserError, match="a path outside s3://"):
            read_manifest(storage, write_file(tmp_path, f"path,label\nrun/a.mp4,x\n{path},x\n"))


def test_a_missing_folder_of_videos_is_one_line(s3: str):
    Storage(s3).write("file", b"")
    for address, message in [
        (f"{s3}/nowhere", "nowhere does not exist"),
        (f"{s3}/file", "file is not a folder"),
        (s3, "contains no videos in class folders"),
    ]:
        with pytest.raises(UserError, match=message):
            read_manifest(address)
    with pytest.raises(StoreError, match="the bucket does not exist"):
        read_manifest("s3://missing/videos")


def test_a_remote_video_is_a_local_file_while_it_is_needed(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage(s3)
    content = bytes(range(256)) * (BLOCK_BYTES // 256) + b"end"
    storage.write("run/a.mp4", content)
    with local_file(storage, "run/a.mp4") as file:
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InterruptedError), local_file(storage, "run/a.mp4"):
        raise InterruptedError
    with (
        pytest.raises(Rejected, match=r"missing: the file run/missing.mp4 does not exist"),
        local_file(storage, "run/missing.mp4"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_local_video_is_not_copied(tmp_path: Path):
    with local_file(Storage(create_files(tmp_path, "run/a.mp4")), "run/a.mp4") as file:
        assert file == tmp_path / "run/a.mp4"


@pytest.mark.cluster
def test_a_killed_and_resumed_job_between_stores_creates_the_bytes_of_a_local_job(
    videos: Path, dataset_folder: Path, s3: str
):
    upload(videos, f"{s3}/videos")
    remote = Storage(f"{s3}/data")
    job = ("preprocess", f"{s3}/videos", "--out", f"{s3}/data", "--short-side", 64, "--streams", "rgb")
    run_lgd_until(lambda: len(remote.names("rgb/.parts")) >= 1, *job, "--val-fraction", 0.34)
    assert open_dataset(remote).streams == ()
    done = run_lgd(*job, "--val-fraction", 0.34)
    assert done.returncode == 0, done.stderr
    # The local dataset also has the flow stream, which is recorded in these two files; all others must be the same.
    with_flow = {"dataset.json", "videos.parquet"}
    local = [path.relative_to(dataset_folder).as_posix() for path in dataset_folder.rglob("*") if path.is_file()]
    local = [name for name in local if not name.startswith("flow/")]
    assert remote.list_all() == sorted(local)
    different = [name for name in local if remote.read(name) != (dataset_folder / name).read_bytes()]
    assert set(different) == with_flow
    keys = open_dataset(dataset_folder).videos(["key", "frames", "rgb_bytes"])
    assert open_dataset(remote).videos(["key", "frames", "rgb_bytes"]) == keys

    assert inspect(f"{s3}/data", InspectOptions(verify=True)).document()["problems"] == []
    (remote_batch,), (local_batch,) = (
        train_loader(open_dataset(place), "rgb", batch_size=4, steps=range(1), transform=Transform(crop=48))
        for place in (remote, dataset_folder)
    )
    assert (remote_batch.key, remote_batch.position) == (local_batch.key, local_batch.position)
    assert torch.equal(remote_batch.video, local_batch.video)


def test_a_folder_with_other_files_is_not_used_for_a_new_dataset(videos: Path, s3: str):
    Storage(s3).write("other", b"")
    with pytest.raises(UserError, match="contains other files and is not a dataset"):
        preprocess(str(videos), s3)
    assert Storage(s3).list_all() == ["other"]


def test_a_missing_bucket_for_the_dataset_is_one_line(videos: Path, s3: str):
    with pytest.raises(StoreError, match="the bucket does not exist: create it"):
        preprocess(str(videos), "s3://missing/data")
