import tarfile
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import shard_name
from lgd.preprocessing.plan import ShardPlan
from lgd.preprocessing.shard_tar import read_shard
from tests.preprocessing.conftest import SPECS, create, empty_dataset


def test_a_shard_is_read_back_video_by_video(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = empty_dataset(tmp_path)
    create(storage, folder, plan, specs={"rgb": SPECS["rgb"]})
    videos = list(read_shard(storage, "rgb", plan.name))
    with tarfile.open(storage.path(shard_name("rgb", plan.name))) as tar:
        members = {member.name: member for member in tar}
        bodies = {name: tar.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]
    assert list(members) == [f"{v.description['key']}.{kind}" for v in videos for kind in ("json", "mjpeg")]
    for video in videos:
        assert b"".join(video.frames) == bodies[f"{video.description['key']}.mjpeg"]
        assert [len(frame) for frame in video.frames] == video.description["bytes"]
    assert {(member.mtime, member.uid, member.gid) for member in members.values()} == {(0, 0, 0)}


@pytest.mark.parametrize("members_left", [0, 1, 3, 4])
def test_a_tar_that_lacks_members_is_damaged(folder: Path, plan: ShardPlan, tmp_path: Path, members_left: int):
    storage = empty_dataset(tmp_path)
    create(storage, folder, plan, specs={"rgb": SPECS["rgb"]})
    path = Path(storage.path(shard_name("rgb", plan.name)))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[members_left].offset
    path.write_bytes(path.read_bytes()[:end] + bytes(1024))
    with pytest.raises(UserError, match=r"train-000000\.tar is damaged .* delete it and rerun"):
        list(read_shard(storage, "rgb", plan.name))
