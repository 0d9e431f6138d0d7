import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def segments(*items: tuple[float, float, str]) -> list[dict[str, Any]]:
    return [{"segment": [start, end], "label": label} for start, end, label in items]


def write_database(folder: Path, database: dict[str, Any], name: str = "activity_net.v1-3.min.json") -> Path:
    return write_file(folder, json.dumps({"version": "VERSION 1.3", "taxonomy": [], "database": database}), name)


def test_every_segment_is_a_clip_with_its_times(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "v_-abc.mp4", "train/def.mkv")
    file = write_database(
        tmp_path,
        {
            "-abc": {"subset": "training", "annotations": segments((0.5, 4, "Bend"), (3, 9.25, "Jump"))},
            "def": {"subset": "validation", "annotations": segments((1, 2, "Bend"))},
            "gone": {"subset": "validation", "annotations": segments((1, 2, "Jump"))},
        },
    )
    manifest = read_manifest(tmp_path / "v", file)
    assert manifest.classes == ("Bend", "Jump")
    assert [(v.key, v.path, v.class_name, v.split, v.start_s, v.end_s, v.missing) for v in manifest.videos] == [
        ("-abc_0000500_0004000", "v_-abc.mp4", "Bend", "train", 0.5, 4.0, False),
        ("-abc_0003000_0009250", "v_-abc.mp4", "Jump", "train", 3.0, 9.25, False),
        ("def_0001000_0002000", "train/def.mkv", "Bend", "val", 1.0, 2.0, False),
        ("gone_0001000_0002000", "v_gone.mp4", "Jump", "val", 1.0, 2.0, True),
    ]


def test_segments_that_cannot_be_clips_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_files(tmp_path / "v", "v_a.mp4")
    items = [(1, 1, "x"), (5, 2, "x"), (2, 3, "x"), (2.0, 3.0, "x"), (6, 7, "x"), (6, 7, "y"), (8, 9, "y")]
    file = write_database(tmp_path, {"a": {"subset": "training", "annotations": segments(*items)}})
    with caplog.at_level(logging.WARNING):
        manifest = read_manifest(tmp_path / "v", file)
    assert [(v.start_s, v.end_s, v.class_name) for v in manifest.videos] == [(2.0, 3.0, "x"), (8.0, 9.0, "y")]
    assert "segments that end before they start are left out: 2" in caplog.text
    assert "segments that are listed twice are read once: 1" in caplog.text
    assert "segments with several labels are left out: 1" in caplog.text


def test_videos_without_annotations_have_no_label_in_the_split_test_and_are_left_out_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_files(tmp_path / "v", "v_a.mp4", "v_b.mp4", "v_c.mp4")
    database = {
        "a": {"subset": "training", "annotations": segments((1, 2, "x"))},
        "b": {"subset": "testing", "annotations": []},
        "c": {"subset": "training", "annotations": []},
    }
    with caplog.at_level(logging.WARNING):
        manifest = read_manifest(tmp_path / "v", write_database(tmp_path, database))
    assert [(v.key, v.label, v.class_name, v.split, v.start_s, v.end_s) for v in manifest.videos] == [
        ("b", None, None, "test", None, None),
        ("a_0001000_0002000", 0, "x", "train", 1.0, 2.0),
    ]
    assert "videos of the split test without annotations have no label: 1" in caplog.text
    assert "videos without annotations are left out: 1" in caplog.text


def test_without_subsets_the_name_of_the_file_says_the_split(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "v_a.mp4")
    text = json.dumps({"v_a": {"duration_second": 5, "annotations": segments((1, 2, "x"))}})
    (video,) = read_manifest(tmp_path / "v", write_file(tmp_path, text, "anet_anno_val.json")).videos
    assert (video.key, video.path, video.split) == ("v_a_0001000_0002000", "v_a.mp4", "val")


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"subset": "other", "annotations": []}, "video a: the subset is 'other': expected training, validation"),
        ({"subset": 3, "annotations": []}, "video a: the subset is 3"),
        ({"annotations": [], "subset": ""}, "video a: the subset is ''"),
        ({"annotations": ["x"]}, "video a: expected"),
        ({"annotations": [{"label": "x"}]}, "video a: expected"),
        ({"annotations": segments((0, 1, " "))}, "video a: expected"),
        ({"annotations": segments((-1, 1, "x"))}, "video a: expected"),
        ({"annotations": segments((0, float("nan"), "x"))}, "video a: expected"),
        ({"annotations": [{"label": "x", "segment": ["0", "1"]}]}, "video a: expected"),
    ],
)
def test_other_structures_are_errors_that_name_the_video(tmp_path: Path, video: dict[str, Any], message: str) -> None:
    create_files(tmp_path / "v", "v_a.mp4")
    with pytest.raises(UserError, match=message) as error:
        read_manifest(tmp_path / "v", write_database(tmp_path, {"a": video}))
    assert "\n" not in str(error.value)
