"""`lgd inspect`: the description of a dataset, its lines and its JSON document."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.table import Table

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, describe_classes, index_name
from lgd.pipeline.inspection import describe as describe_module
from lgd.pipeline.inspection.describe import DatasetDescription, describe, inspect_dataset
from lgd.pipeline.inspection.options import InspectOptions
from lgd.pipeline.storage.storage import Storage
from tests.pipeline.inspection.test_pictures import make


@pytest.fixture
def description(dataset: Dataset) -> DatasetDescription:
    return describe(dataset)


def texts(description: DatasetDescription) -> list[str]:
    return [line for line in description.lines() if isinstance(line, str)]


def test_the_numbers_are_those_of_the_dataset(dataset: Dataset, description: DatasetDescription):
    assert description.dataset == dataset.storage.display()
    assert description.classes == ["down", "grow", "shrink", "sideways", "spin", "up"]
    assert (description.videos, description.splits, description.rejected) == (18, {"train": 12, "val": 6}, {})
    rgb, flow = description.streams["rgb"], description.streams["flow"]
    assert (rgb.videos, rgb.frames, flow.videos, flow.frames) == (18, 18 * 40, 18, 18 * 39)
    assert rgb.bytes == sum(dataset.videos(["rgb_bytes"]).column(0).to_pylist())
    assert (rgb.hash, rgb.spec) == (dataset.specs["rgb"].hash, dict(dataset.specs["rgb"].settings))
    assert rgb.saturated is None
    assert 0 <= (flow.saturated or 0) < 0.01


def test_keys_that_were_not_requested_are_absent_from_the_document(description: DatasetDescription):
    document = description.document()
    assert list(document) == ["dataset", "classes", "videos", "splits", "unlabelled", "rejected", "streams"]
    assert list(document["streams"]["rgb"]) == ["videos", "frames", "bytes", "hash", "spec"]
    assert list(document["streams"]["flow"]) == ["videos", "frames", "bytes", "hash", "spec", "saturated"]
    assert document == json.loads(json.dumps(document))
    requested = replace(description, problems=[], pictures=[], dali_indexes=[]).document()
    assert (requested["problems"], requested["pictures"], requested["dali_indexes"]) == ([], [], [])


def test_lines_name_videos_classes_splits_and_rejections(description: DatasetDescription):
    first, second, *rest = texts(replace(description, rejected={"unreadable": 2, "too short": 1}))
    assert first == (
        f"{description.dataset}: 18 videos in 6 classes (down, grow, shrink, sideways, ... and 2 more); "
        "videos by split: train 12, val 6"
    )
    assert second == "rejected videos: unreadable 2, too short 1"
    (first, *_) = texts(replace(description, unlabelled={"val": 6}))
    assert first.endswith("videos by split: train 12, val 6 (6 without a label)")
    assert rest == [f"flow vectors that exceed the bound: {description.streams['flow'].saturated:.3%}"]
    assert "rejected videos: none" in texts(description)
    (table,) = (line for line in description.lines() if isinstance(line, Table))
    assert [column.header for column in table.columns] == ["stream", "videos", "frames", "MB", "spec"]
    assert list(table.columns[2].cells) == ["720", "702"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a"], "1 class (a)"),
        (["a", "b", "c", "d"], "4 classes (a, b, c, d)"),
        (list("abcdef"), "6 classes (a, b, c, d, ... and 2 more)"),
    ],
)
def test_the_number_of_classes_and_the_first_names_are_shown(names: list[str], expected: str):
    assert describe_classes(names) == expected


def test_requested_results_have_their_lines(description: DatasetDescription, dataset_folder: Path, tmp_path: Path):
    options = InspectOptions(verify=True, pictures=str(tmp_path / "p"), videos=2, dali_index=str(tmp_path / "i"))
    result = inspect_dataset(str(dataset_folder), options)
    assert replace(result, problems=None, pictures=None, dali_indexes=None) == description
    assert result.problems == []
    assert result.pictures is not None
    assert result.dali_indexes is not None
    assert [Path(row["file"]).is_file() for row in result.pictures] == [True, True]
    assert [name for name in result.dali_indexes if not (tmp_path / "i" / name).is_file()] == []
    assert texts(result)[3:] == [
        "verified: all frames exist and match their checksums",
        f"pictures of 2 videos, the first in {result.pictures[0]['file']}",
        f"{len(result.dali_indexes)} index files for DALI's webdataset reader",
    ]
    assert result.failed == ""


def test_a_dataset_with_problems_fails_and_is_not_drawn(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    problems = [f"problem {number}" for number in range(25)]
    monkeypatch.setattr(describe_module, "verify_dataset", lambda dataset, streams: problems)
    result = inspect_dataset(str(dataset_folder), InspectOptions(verify=True, pictures=str(tmp_path / "p")))
    assert result.failed == (
        f"{dataset_folder} has 25 problems (the first 20 are shown): delete the damaged shards and rerun "
        "`lgd preprocess` to recreate them"
    )
    assert capsys.readouterr().err.split("\n") == [*problems[:20], ""]
    assert result.document()["problems"] == problems
    assert result.pictures is None
    assert not (tmp_path / "p").exists()
    assert not [line for line in texts(result) if "verified" in line]
    assert "has 1 problem:" in replace(result, problems=["x"]).failed


def test_a_number_of_videos_needs_pictures_before_anything_is_read(tmp_path: Path):
    with pytest.raises(UsageError, match="give --pictures DIR as well"):
        inspect_dataset(str(tmp_path / "missing"), InspectOptions(videos=3))
    with pytest.raises(UsageError, match="--videos must be 1 or more, not 0"):
        inspect_dataset(str(tmp_path / "missing"), InspectOptions(pictures="p", videos=0))


def test_a_dataset_without_a_complete_stream_is_an_error(tmp_path: Path):
    make(tmp_path / "data", ("rgb",))
    Storage(tmp_path / "data").delete(index_name("rgb"))
    with pytest.raises(UserError, match=r"rgb stream of .* is incomplete"):
        inspect_dataset(str(tmp_path / "data"))


def test_videos_without_a_label_are_counted_by_split(unlabelled_dataset: Dataset):
    description = describe(unlabelled_dataset)
    assert description.unlabelled == {"test": 2, "train": 1}
    assert texts(description)[0].endswith(
        "6 videos in 2 classes (down, up); videos by split: test 2 (2 without a label), train 3 (1 without a label), "
        "val 1"
    )
