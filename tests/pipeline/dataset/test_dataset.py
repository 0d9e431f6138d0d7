"""Opening a dataset: its description, its complete streams, and what is refused."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import DESCRIPTION, Dataset, StreamSpec, index_name, open_dataset
from lgd.pipeline.storage.cache import ShardCache
from lgd.pipeline.storage.storage import Storage
from tests.support.flaky_s3 import FlakyEndpoint

SUMMARY = {"videos": 2, "rejected": 0, "reasons": {}, "frames": 9, "splits": {"train": 2}, "bytes": {"rgb": 99}}


def stored_stream(settings: dict[str, float], stream: str = "rgb") -> dict[str, object]:
    return {"hash": StreamSpec(stream, settings).hash, "recipe": settings}


def create_dataset(folder: Path) -> Dataset:
    dataset = Dataset(Storage(folder), "f" * 16, ("a", "b"), 4, {"rgb": StreamSpec("rgb", {"fps": 25.0, "side": 120})})
    dataset.storage.make_folder("rgb")
    dataset.save()
    return dataset


def test_a_saved_dataset_is_opened_with_the_same_fields(tmp_path: Path):
    saved, opened = create_dataset(tmp_path), open_dataset(tmp_path)
    for name in ("fingerprint", "classes", "videos_per_shard", "specs", "summary"):
        assert getattr(saved, name) == getattr(opened, name)


def test_the_cache_of_a_dataset_is_not_compared_shown_or_pickled(tmp_path: Path):
    create_dataset(tmp_path / "data")
    with ShardCache(tmp_path / "cache", 1 << 20) as cache:
        plain, cached = open_dataset(tmp_path / "data"), open_dataset(tmp_path / "data", cache)
        assert cached.cache is cache
        assert "cache" not in repr(cached).replace(str(tmp_path), "")
        copy = pickle.loads(pickle.dumps(cached))
        assert copy.cache is None
        assert cached.cache is cache
        same = replace(cached, storage=plain.storage)
        assert (same == plain, same.cache) == (True, cache)
        for name in ("fingerprint", "classes", "specs", "streams"):
            assert getattr(copy, name) == getattr(cached, name)


def test_the_hash_of_a_spec_changes_with_every_setting_and_with_nothing_else():
    spec = StreamSpec("rgb", {"fps": 25.0, "side": 120})
    assert StreamSpec("rgb", {"side": 120, "fps": 25.0}).hash == spec.hash
    assert (
        len({spec.hash, StreamSpec("flow", spec.settings).hash, StreamSpec("rgb", {"fps": 30.0, "side": 120}).hash})
        == 3
    )
    assert spec.differences(StreamSpec("rgb", {"fps": 30.0, "bound": 9.4})) == [
        "bound: None -> 9.4",
        "fps: 25.0 -> 30.0",
        "side: 120 -> None",
    ]


def test_a_stream_without_an_index_is_incomplete(tmp_path: Path):
    create_dataset(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.streams == ()
    with pytest.raises(UserError, match="is incomplete: rerun"):
        dataset.spec("rgb")
    with pytest.raises(UserError, match="has no flow stream"):
        dataset.spec("flow")
    with pytest.raises(UsageError, match="unknown stream 'audio'"):
        dataset.spec("audio")
    dataset.storage.write(index_name("rgb"), b"")
    assert dataset.streams == ()  # as it was when the dataset was opened
    replace(dataset, summary=SUMMARY).save()
    dataset = open_dataset(tmp_path)
    assert dataset.streams == ("rgb",)
    assert dataset.spec("rgb") == dataset.specs["rgb"]


def test_an_opened_dataset_does_not_ask_the_store_for_its_streams(remote: Dataset, flaky_s3: FlakyEndpoint):
    flaky_s3[0].received.clear()
    dataset = open_dataset(remote.storage)
    requests = [request for request in flaky_s3[0].received.elements() if "index" in request]
    assert len(requests) <= len(dataset.specs) == 2
    flaky_s3[0].received.clear()
    for _ in range(3):
        assert dataset.streams == ("rgb", "flow")
        assert dataset.spec("rgb") == dataset.specs["rgb"]
    assert not flaky_s3[0].received


def change(folder: Path, **fields: object) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps({**description, **fields}))


def test_a_different_version_is_refused(tmp_path: Path):
    create_dataset(tmp_path)
    change(tmp_path, version=2)
    with pytest.raises(
        UserError, match=r"is a dataset of version 2; lgd .* reads version 1: use the version of lgd that wrote it, or"
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"dataset\.json is damaged: it is not valid JSON \(.*\): restore"),
        ("", "is damaged: it is not valid JSON"),
        ("[]", r"dataset\.json: it must be a group of fields: restore"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": "lgd-dataset", "format": "lgd-dataset"}', "'format' appears twice"),
        ('{"format": "other", "version": 1}', r"is not the description of a dataset \(field 'format' is 'other'\)"),
        ('{"format": "lgd-dataset"}', "field 'version' is missing"),
        ('{"format": "lgd-dataset", "version": 1}', "field 'fingerprint' is missing"),
        ('{"format": "lgd-dataset", "version": "1"}', "field 'version' is '1', must be a whole number"),
    ],
)
def test_an_invalid_description_is_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / DESCRIPTION).write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        open_dataset(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": []}, "field 'classes' is an empty list"),
        ({"classes": ["a", "a"]}, "field 'classes' contains a name twice"),
        ({"classes": ["a", 3]}, "field 'classes' contains 3, must be text"),
        ({"videos_per_shard": 0}, "field 'videos_per_shard' is 0"),
        ({"videos_per_shard": 1e400}, "inf|Infinity"),
        ({"videos_per_shard": 4.5}, "field 'videos_per_shard' is 4.5, must be a whole number"),
        ({"streams": {"../x": {"hash": "0", "recipe": {}}}}, "field 'streams.../x' is the name of an unknown stream"),
        ({"streams": {"rgb": {"hash": "0", "recipe": {"fps": 25.0}}}}, "'streams.rgb.recipe' does not have the hash"),
        (
            {"streams": {"rgb": stored_stream({"fps": -1.0})}},
            "'streams.rgb.recipe.fps' is -1.0, must be a number above 0",
        ),
        ({"streams": {"rgb": stored_stream({})}}, "'streams.rgb.recipe.fps' is None"),
        ({"streams": {"flow": stored_stream({"fps": 25.0}, "flow")}}, "'streams.flow.recipe.bound' is None"),
        ({"summary": {}}, "field 'summary.videos' is missing"),
        ({"summary": {**SUMMARY, "splits": {"train": -2}}}, "field 'summary.splits' has a value below 0"),
        ({"summary": {**SUMMARY, "splits": {"train": 3}}}, "'summary.splits' has a sum other than the 2 videos"),
        ({"summary": {**SUMMARY, "splits": 3}}, "field 'summary.splits' is 3, must be a group of fields"),
        ({"summary": {**SUMMARY, "unlabelled": {"val": 1}}}, "'summary.unlabelled' has more videos of val"),
    ],
)
def test_a_wrong_value_in_the_description_is_named(tmp_path: Path, fields: dict[str, object], message: str):
    replace(create_dataset(tmp_path), summary=SUMMARY).save()
    Storage(tmp_path).write(index_name("rgb"), b"")
    assert open_dataset(tmp_path).streams == ("rgb",)
    change(tmp_path, **fields)
    with pytest.raises(UserError, match=message) as raised:
        open_dataset(tmp_path)
    assert str(tmp_path / DESCRIPTION) in str(raised.value)


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="not a dataset"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="missing does not exist"):
        open_dataset(tmp_path / "missing")
