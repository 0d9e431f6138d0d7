import dataclasses
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import shard_name
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.plan import (
    ShardPlan,
    default_videos_per_shard,
    find_complete_shards,
    plan_shards,
    update_manifest,
)
from lgd.preprocessing.settings import Settings
from tests.preprocessing.conftest import (
    SPECS,
    assert_same_bytes,
    create,
    empty_dataset,
    is_complete,
    retry,
    shard_files,
)


def listing(*keys: str, split: str = "train") -> Manifest:
    return Manifest(tuple(Video(key, f"{key}.mp4", 0, "a", split) for key in keys), ("a",))


def test_a_shard_holds_videos_of_one_split_only():
    manifest = Manifest((*listing(*"abcde").videos, *listing("x", "y", split="val").videos), ("a",))
    plans = [(plan.name, "".join(video.key for video in plan.videos)) for plan in plan_shards(manifest, 2)]
    assert plans == [("train-000000", "ab"), ("train-000001", "cd"), ("train-000002", "e"), ("val-000000", "xy")]


def test_small_datasets_get_about_64_shards_and_large_ones_128_videos_per_shard():
    assert [default_videos_per_shard(videos) for videos in (1, 640, 500_000)] == [4, 10, 128]


def test_a_shard_with_different_videos_spec_or_size_is_not_complete(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = empty_dataset(tmp_path)
    small = ShardPlan(plan.name, plan.videos[1:2])
    assert not is_complete(storage, SPECS["rgb"], small)
    create(storage, folder, small, specs={"rgb": SPECS["rgb"]})
    assert is_complete(storage, SPECS["rgb"], small)
    assert not is_complete(storage, SPECS["rgb"], plan)
    assert not is_complete(storage, Settings(short_side=48).spec("rgb"), small)
    path = Path(storage.path(shard_name("rgb", plan.name)))
    path.write_bytes(path.read_bytes()[:-512])
    assert not is_complete(storage, SPECS["rgb"], small)


def test_the_identity_of_a_shard_changes_only_with_its_own_videos(plan: ShardPlan):
    label = plan.videos[0].label
    assert label is not None
    changed = dataclasses.replace(plan.videos[0], label=label + 1)
    assert ShardPlan(plan.name, (changed, *plan.videos[1:])).identity != plan.identity
    assert ShardPlan(plan.name, tuple(map(dataclasses.replace, plan.videos))).identity == plan.identity


def test_after_a_retry_that_was_killed_between_two_streams_only_the_updated_stream_counts_as_complete(
    folder: Path, plan: ShardPlan, recovered_plan: ShardPlan, tmp_path: Path
):
    storage = empty_dataset(tmp_path)
    create(storage, folder, plan)
    outdated = {name: storage.read(name) for name in shard_files(plan, "flow")}
    retry(storage, folder, recovered_plan)
    with ThreadPoolExecutor() as pool:
        assert find_complete_shards(storage, SPECS, [plan], pool=pool)[0].keys() == {"rgb", "flow"}
        for name, content in outdated.items():
            storage.write(name, content)
        assert find_complete_shards(storage, SPECS, [plan], pool=pool)[0].keys() == {"rgb"}
    create(storage, folder, recovered_plan, specs={"flow": SPECS["flow"]}, existing="rgb")
    fresh = empty_dataset(tmp_path / "fresh")
    create(fresh, folder, recovered_plan)
    assert_same_bytes(storage, fresh, plan)


def test_a_manifest_takes_in_files_that_were_missing_and_keeps_files_that_are_missing_now():
    planned = listing("a", "b", "c")
    absent = dataclasses.replace(planned.videos[0], path="looked/for/a.mp4", missing=True)
    planned = dataclasses.replace(planned, videos=(absent, *planned.videos[1:]))
    found, lost = listing("a").videos[0], dataclasses.replace(planned.videos[1], path="elsewhere.mp4", missing=True)
    listed = dataclasses.replace(planned, videos=(found, lost, planned.videos[2]))
    assert update_manifest(planned, listed, "data").videos == (found, planned.videos[1], planned.videos[2])


@pytest.mark.parametrize(
    ("listed", "difference"),
    [
        (listing("a", "b", "d"), "1 new, such as d; 1 no longer listed, such as c"),
        (listing("a"), "2 no longer listed, such as b"),
        (Manifest(listing("a", "b", "c").videos, ("a", "z")), "different classes"),
        (listing("a", "b", "c", split="val"), "3 with a different label, split, file or time, such as a"),
    ],
)
def test_a_manifest_of_different_videos_is_refused_with_what_differs(listed: Manifest, difference: str):
    message = f"data was created from a different list of videos ({difference}): use the same options"
    with pytest.raises(UserError, match=re.escape(message)):
        update_manifest(listing("a", "b", "c"), listed, "data")


def composed_and_decomposed(text: str) -> tuple[str, str]:
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def test_a_dataset_keeps_the_spelling_of_names_with_which_it_was_created():
    (e, old_e), (path, old_path) = composed_and_decomposed("é"), composed_and_decomposed("é/ü.mp4")
    # Decomposed letters sort differently: é before f, but after it if composed.
    planned = Manifest(
        (Video("e-u", old_path, 0, old_e, "valid"), Video("f-x", " f/x.mp4", 1, "f", "Train")), (old_e, "f")
    )
    listed = Manifest((Video("f-x", "f/x.mp4", 0, "f", "train"), Video("e-u", path, 1, e, "val")), ("f", e))
    assert update_manifest(planned, listed, "data") == planned
    other = dataclasses.replace(listed, videos=(listed.videos[0], dataclasses.replace(listed.videos[1], split="test")))
    with pytest.raises(UserError, match="1 with a different label, split, file or time, such as e-u"):
        update_manifest(planned, other, "data")
    other = dataclasses.replace(listed, videos=(listed.videos[0], Video("e-u", path, 0, "f", "val")))
    with pytest.raises(UserError, match="1 with a different label, split, file or time, such as e-u"):
        update_manifest(planned, other, "data")
    with pytest.raises(UserError, match="different classes"):
        update_manifest(planned, dataclasses.replace(listed, classes=("f", "g")), "data")


def test_a_dataset_keeps_keys_that_depended_on_the_spelling_of_a_path():
    path, old_path = composed_and_decomposed("가/나.mp4")
    planned = Manifest(
        (
            Video("old1", old_path, 0, "a", "train"),
            Video("_b", " b.mp4", 0, "a", "train", missing=True),
            Video("c", "c.mp4", 0, "a", "val"),
        ),
        ("a",),
    )
    listed = Manifest(
        (  # the split of each video was chosen by its key
            Video("new1", path, 0, "a", "val"),
            Video("b", "b.mp4", 0, "a", "train"),
            Video("c", "c.mp4", 0, "a", "train"),
        ),
        ("a",),
    )
    updated = update_manifest(planned, listed, "data")
    found = Video("_b", "b.mp4", 0, "a", "train")
    assert updated.videos == (planned.videos[0], found, planned.videos[2])
    more = dataclasses.replace(listed, videos=(*listed.videos, Video("d", "d.mp4", 0, "a", "train")))
    with pytest.raises(UserError, match="1 new, such as d"):
        update_manifest(planned, more, "data")


def test_a_new_order_of_the_classes_is_a_different_dataset():
    planned, listed = (Manifest(listing("a").videos, classes) for classes in (("z", "a"), ("a", "z")))
    with pytest.raises(UserError, match="different classes"):
        update_manifest(planned, listed, "data")


def test_unlabelled_videos_are_part_of_the_plan():
    planned = Manifest((Video("a", "a.mp4", None, None, "test"), *listing("b").videos), ("a",))
    assert update_manifest(planned, planned, "data") == planned
    with pytest.raises(UserError, match="1 with a different label"):
        update_manifest(planned, Manifest((Video("a", "a.mp4", 0, "a", "test"), planned.videos[1]), ("a",)), "data")
    assert Manifest.from_table(planned.table()) == planned
