import json
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import DESCRIPTION, Dataset, StreamSpec, index_name, open_dataset
from lgd.pipeline.storage.storage import Storage


def make(folder: Path) -> Dataset:
    dataset = Dataset(Storage(folder), "f" * 16, ("a", "b"), 4, {"rgb": StreamSpec("rgb", {"fps": 25.0, "side": 120})})
    dataset.storage.make_folder("rgb")
    dataset.save()
    return dataset


def test_a_dataset_is_opened_as_it_was_saved(tmp_path: Path):
    saved, opened = make(tmp_path), open_dataset(tmp_path)
    for name in ("fingerprint", "classes", "videos_per_shard", "recipes", "summary"):
        assert getattr(saved, name) == getattr(opened, name)


def test_a_recipes_hash_changes_with_every_setting_and_with_nothing_else():
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


def test_a_stream_without_an_index_is_not_finished(tmp_path: Path):
    dataset = make(tmp_path)
    assert dataset.streams == []
    with pytest.raises(UserError, match="not finished"):
        dataset.spec("rgb")
    with pytest.raises(UserError, match="has no flow stream"):
        dataset.spec("flow")
    with pytest.raises(UsageError, match="no stream 'audio'"):
        dataset.spec("audio")
    dataset.storage.write(index_name("rgb"), b"")
    assert dataset.spec("rgb") == dataset.specs["rgb"]


def change(folder: Path, **fields: object) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps({**description, **fields}))


def test_another_version_is_refused(tmp_path: Path):
    make(tmp_path)
    change(tmp_path, version=2)
    with pytest.raises(UserError, match=r"version 2, and this program reads version 1: preprocess it again"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other", "version": 1}', '{"format": "lgd-dataset"}'])
def test_a_damaged_or_foreign_description_is_refused(tmp_path: Path, content: str):
    (tmp_path / DESCRIPTION).write_text(content)
    with pytest.raises(UserError, match="does not describe a dataset"):
        open_dataset(tmp_path)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="not a dataset"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="there is no dataset"):
        open_dataset(tmp_path / "nowhere")
