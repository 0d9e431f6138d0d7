import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import StreamSpec, shard_name
from lgd.pipeline.dataset.index import part_name, read_part
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.plan import ShardPlan, rejected_in, survey
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard import ShardCounters, make_shard, retry_shard

SETTINGS = Settings(short_side=32)
RECIPES = {stream: SETTINGS.spec(stream) for stream in ("rgb", "flow")}


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


def make(storage: Storage, folder: Path, *more, **named) -> ShardCounters:
    """All the work of a task, done."""
    return together(make_shard(storage, Storage(folder), *more, **named))


def together(steps: Iterator[ShardCounters]) -> ShardCounters:
    total = ShardCounters()
    for work in steps:
        total.add(work)
    return total


def is_complete(storage: Storage, spec: StreamSpec, plan: ShardPlan) -> bool:
    return rejected_in(storage, spec, plan) is not None


def storage_in(folder: Path) -> Storage:
    storage = Storage(folder)
    for stream in RECIPES:
        storage.make_folder(f"{stream}/.parts")
    return storage


def test_every_video_is_in_the_shard_or_rejected_with_a_reason(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = storage_in(tmp_path)
    result = make(storage, folder, plan, SETTINGS, RECIPES)
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
    whole, apart = storage_in(tmp_path / "whole"), storage_in(tmp_path / "apart")
    make(whole, folder, plan, SETTINGS, RECIPES)
    make(apart, folder, plan, SETTINGS, {"rgb": RECIPES["rgb"]})
    assert not apart.exists(shard_name("flow", plan.name))
    make(apart, folder, plan, SETTINGS, {"flow": RECIPES["flow"]}, other="rgb")
    for stream in RECIPES:
        for name in (shard_name(stream, plan.name), part_name(stream, plan.name)):
            assert whole.read(name) == apart.read(name)


def test_a_failure_leaves_no_shard_behind(
    folder: Path, plan: ShardPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage = storage_in(tmp_path)
    monkeypatch.setattr("lgd.preprocessing.shard.compute_flow", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(storage, folder, plan, SETTINGS, RECIPES)
    assert [storage.names(name) for name in ("rgb", "flow", "rgb/.parts", "flow/.parts")] == [[]] * 4


def test_a_video_that_changed_between_the_streams_is_an_error_that_names_it(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    copy = tmp_path / "copy" / "up"
    copy.mkdir(parents=True)
    for path in (folder / "up").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    storage = storage_in(tmp_path)
    make(storage, copy.parent, plan, SETTINGS, {"rgb": RECIPES["rgb"]})
    (copy / "up_1.mp4").write_bytes(b"overwritten")
    key = next(video.key for video in plan.videos if video.path == "up/up_1.mp4")
    with pytest.raises(UserError, match=f"{key} is in the rgb stream, but cannot be decoded now"):
        make(storage, copy.parent, plan, SETTINGS, {"flow": RECIPES["flow"]}, other="rgb")
    assert storage.names("flow") == []


def test_a_machine_with_other_programs_is_refused(folder: Path, plan: ShardPlan, tmp_path: Path):
    planned = dataclasses.replace(RECIPES["rgb"], settings={**RECIPES["rgb"].settings, "ffmpeg": "0.5"})
    with pytest.raises(UserError, match=r"this machine would make other rgb bytes .*ffmpeg: 0.5 -> "):
        make(storage_in(tmp_path), folder, plan, SETTINGS, {"rgb": planned})


def test_a_shard_of_other_videos_recipe_or_size_is_not_complete(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = storage_in(tmp_path)
    small = ShardPlan(plan.name, plan.videos[1:2])
    rgb = {"rgb": RECIPES["rgb"]}
    assert not is_complete(storage, RECIPES["rgb"], small)
    make(storage, folder, small, SETTINGS, rgb)
    assert is_complete(storage, RECIPES["rgb"], small)
    assert not is_complete(storage, RECIPES["rgb"], plan)
    assert not is_complete(storage, Settings(short_side=48).spec("rgb"), small)
    path = Path(storage.path(shard_name("rgb", plan.name)))
    path.write_bytes(path.read_bytes()[:-512])
    assert not is_complete(storage, RECIPES["rgb"], small)


def test_videos_of_one_shard_only_change_that_shards_identity(plan: ShardPlan):
    other = dataclasses.replace(plan.videos[0], label=plan.videos[0].label + 1)
    assert ShardPlan(plan.name, (other, *plan.videos[1:])).identity != plan.identity
    assert ShardPlan(plan.name, tuple(map(dataclasses.replace, plan.videos))).identity == plan.identity


def test_of_a_shard_that_one_stream_has_mended_and_the_other_not_only_the_mended_one_counts(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    """A retry that was killed between the two."""
    storage = storage_in(tmp_path)
    make(storage, folder, plan, SETTINGS, RECIPES)
    old = {name: storage.read(name) for name in (shard_name("flow", plan.name), part_name("flow", plan.name))}
    found = plan_with_the_missing_one(plan)
    together(retry_shard(storage, Storage(folder), found, settings=SETTINGS, specs=RECIPES))
    with ThreadPoolExecutor() as pool:
        assert survey(storage, RECIPES, [plan], pool=pool)[0].keys() == {"rgb", "flow"}
        for name, content in old.items():
            storage.write(name, content)
        assert survey(storage, RECIPES, [plan], pool=pool)[0].keys() == {"rgb"}
    make(storage, folder, found, SETTINGS, {"flow": RECIPES["flow"]}, other="rgb")
    fresh = storage_in(tmp_path / "fresh")
    make(fresh, folder, found, SETTINGS, RECIPES)
    assert_same_bytes(storage, fresh, plan.name)


def test_a_retry_writes_the_bytes_of_a_run_that_had_the_file_from_the_start(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    storage, fresh = storage_in(tmp_path / "retried"), storage_in(tmp_path / "fresh")
    make(storage, folder, plan, SETTINGS, RECIPES)
    found = plan_with_the_missing_one(plan)
    work = together(retry_shard(storage, Storage(folder), found, settings=SETTINGS, specs=RECIPES))
    assert (work.videos, work.rejected) == (1, 1)
    make(fresh, folder, found, SETTINGS, RECIPES)
    assert_same_bytes(storage, fresh, plan.name)


def test_a_retry_that_was_killed_between_two_streams_and_is_repeated_ends_well(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    storage, fresh = storage_in(tmp_path / "retried"), storage_in(tmp_path / "fresh")
    make(storage, folder, plan, SETTINGS, RECIPES)
    found = plan_with_the_missing_one(plan)
    make(fresh, folder, found, SETTINGS, RECIPES)
    storage.write(shard_name("rgb", plan.name), fresh.read(shard_name("rgb", plan.name)))  # and no more
    together(retry_shard(storage, Storage(folder), found, settings=SETTINGS, specs=RECIPES))
    assert_same_bytes(storage, fresh, plan.name)


def test_a_retry_does_not_copy_what_is_damaged(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = storage_in(tmp_path)
    make(storage, folder, plan, SETTINGS, RECIPES)
    path = Path(storage.path(shard_name("rgb", plan.name)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-000000\.tar is damaged"):
        together(
            retry_shard(storage, Storage(folder), plan_with_the_missing_one(plan), settings=SETTINGS, specs=RECIPES)
        )
    assert path.read_bytes() == content


def plan_with_the_missing_one(plan: ShardPlan) -> ShardPlan:
    """As `plan`, but the file that was missing has turned up."""
    gone = dataclasses.replace(plan.videos[-1], path="up/up_0.mp4", missing=False)
    return ShardPlan(plan.name, (*plan.videos[:-1], gone))


def assert_same_bytes(one: Storage, other: Storage, shard: str) -> None:
    for stream in RECIPES:
        for name in (shard_name(stream, shard), part_name(stream, shard)):
            assert one.read(name) == other.read(name), name
