import dataclasses
from pathlib import Path

import pytest

from pipeline.dataset import shard_name
from pipeline.errors import UserError
from pipeline.index import part_name, read_part
from pipeline.storage import Storage
from preprocessing.annotations import read_manifest
from preprocessing.settings import Settings
from preprocessing.shard import ShardPlan, is_complete, make_shard

SETTINGS = Settings(short_side=32)
RECIPES = {stream: SETTINGS.recipe(stream) for stream in ("rgb", "flow")}


@pytest.fixture(scope="module")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class folder with three sound videos and one broken one."""
    folder = tmp_path_factory.mktemp("shard")
    (folder / "up").mkdir()
    for number in range(3):
        (folder / "up" / f"up_{number}.mp4").symlink_to(videos / "up" / f"up_{number:03d}.mp4")
    (folder / "up" / "broken.mp4").write_bytes(b"text, not video" * 50)
    return folder


@pytest.fixture(scope="module")
def plan(folder: Path) -> ShardPlan:
    """The four, and one that is listed but not there."""
    found = tuple(
        dataclasses.replace(video, split="train") for video in read_manifest(folder, val_fraction=0.25).videos
    )
    gone = dataclasses.replace(found[0], key="gone", path="up/gone.mp4", missing=True)
    return ShardPlan("train-000000", (*found, gone))


def storage_in(folder: Path) -> Storage:
    storage = Storage(folder)
    for stream in RECIPES:
        storage.make_folder(f"{stream}/.parts")
    return storage


def test_every_video_is_in_the_shard_or_rejected_with_a_reason(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = storage_in(tmp_path)
    result = make_shard(storage, Storage(folder), plan, SETTINGS, RECIPES)
    assert (result.videos, result.rejected, result.frames, result.flow_pairs) == (3, 2, 120, 117)
    for stream, lost in (("rgb", 0), ("flow", 1)):
        part, record = read_part(storage, stream, plan.name)
        rejected = {row["key"]: row["reason"] for row in record["rejected"]}
        assert rejected.keys() | set(part.column("key").to_pylist()) == {video.key for video in plan.videos}
        assert rejected["gone"] == "missing"
        assert len(rejected) == 2
        assert [len(ends) for ends in part.column("ends")] == [40 - lost] * 3
        assert is_complete(storage, RECIPES[stream], plan)


def test_the_same_videos_give_the_same_bytes_together_and_one_stream_after_the_other(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    together, apart = storage_in(tmp_path / "together"), storage_in(tmp_path / "apart")
    make_shard(together, Storage(folder), plan, SETTINGS, RECIPES)
    make_shard(apart, Storage(folder), plan, SETTINGS, {"rgb": RECIPES["rgb"]})
    assert not apart.exists(shard_name("flow", plan.name))
    make_shard(apart, Storage(folder), plan, SETTINGS, {"flow": RECIPES["flow"]}, other="rgb")
    for stream in RECIPES:
        for name in (shard_name(stream, plan.name), part_name(stream, plan.name)):
            assert together.read(name) == apart.read(name)


def test_a_failure_leaves_no_shard_behind(
    folder: Path, plan: ShardPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage = storage_in(tmp_path)
    monkeypatch.setattr("preprocessing.shard.compute_flow", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_shard(storage, Storage(folder), plan, SETTINGS, RECIPES)
    assert [storage.names(name) for name in ("rgb", "flow", "rgb/.parts", "flow/.parts")] == [[]] * 4


def test_a_video_that_changed_between_the_streams_is_an_error_that_names_it(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    copy = tmp_path / "copy" / "up"
    copy.mkdir(parents=True)
    for path in (folder / "up").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    storage = storage_in(tmp_path)
    make_shard(storage, Storage(copy.parent), plan, SETTINGS, {"rgb": RECIPES["rgb"]})
    (copy / "up_1.mp4").write_bytes(b"overwritten")
    key = next(video.key for video in plan.videos if video.path == "up/up_1.mp4")
    with pytest.raises(UserError, match=f"{key} is in the rgb stream, but cannot be decoded now"):
        make_shard(storage, Storage(copy.parent), plan, SETTINGS, {"flow": RECIPES["flow"]}, other="rgb")
    assert storage.names("flow") == []


def test_a_machine_with_other_programs_is_refused(folder: Path, plan: ShardPlan, tmp_path: Path):
    planned = dataclasses.replace(RECIPES["rgb"], settings={**RECIPES["rgb"].settings, "ffmpeg": "0.5"})
    with pytest.raises(UserError, match=r"this machine would make other rgb bytes .*ffmpeg: 0.5 -> "):
        make_shard(storage_in(tmp_path), Storage(folder), plan, SETTINGS, {"rgb": planned})


def test_a_shard_of_other_videos_recipe_or_size_is_not_complete(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = storage_in(tmp_path)
    small = ShardPlan(plan.name, plan.videos[1:2])
    rgb = {"rgb": RECIPES["rgb"]}
    assert not is_complete(storage, RECIPES["rgb"], small)
    make_shard(storage, Storage(folder), small, SETTINGS, rgb)
    assert is_complete(storage, RECIPES["rgb"], small)
    assert not is_complete(storage, RECIPES["rgb"], plan)
    assert not is_complete(storage, Settings(short_side=48).recipe("rgb"), small)
    path = Path(storage.path(shard_name("rgb", plan.name)))
    path.write_bytes(path.read_bytes()[:-512])
    assert not is_complete(storage, RECIPES["rgb"], small)


def test_videos_of_one_shard_only_change_that_shards_identity(plan: ShardPlan):
    other = dataclasses.replace(plan.videos[0], label=plan.videos[0].label + 1)
    assert ShardPlan(plan.name, (other, *plan.videos[1:])).identity != plan.identity
    assert ShardPlan(plan.name, tuple(map(dataclasses.replace, plan.videos))).identity == plan.identity
