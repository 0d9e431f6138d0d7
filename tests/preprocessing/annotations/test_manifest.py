import logging
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def test_rows_are_ordered_by_split_and_key(videos: Path) -> None:
    rows = [(v.split, v.key) for v in read_manifest(videos).videos]
    assert rows == sorted(rows)
    assert {split for split, _ in rows} == {"train", "val"}


def test_keys_are_safe_unique_and_independent_of_other_files(tmp_path: Path) -> None:
    names = [
        "a b/x.mp4",
        "a b/x.avi",
        "a_b/x.mp4",
        "été/ü.mp4",
        "日本/動画.mp4",
        "c/../c/%03d.mp4",
        "c/-dash.mp4",
        "c/n\nl.mp4",
    ]
    manifest = read_manifest(create_files(tmp_path / "one", *names))
    keys = [v.key for v in manifest.videos]
    assert len(set(keys)) == len(names)
    assert all(
        key and set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for key in keys
    )
    assert {v.path: v.key for v in manifest.videos}["été/ü.mp4"] == "ete-u"
    again = read_manifest(create_files(tmp_path / "two", *names[::-1], "z/unrelated.mp4"))
    assert {v.path: v.key for v in again.videos if v.class_name != "z"} == {v.path: v.key for v in manifest.videos}


def test_a_long_path_gives_a_key_that_fits_a_tar_member(tmp_path: Path) -> None:
    manifest = read_manifest(create_files(tmp_path, f"{'c' * 200}/{'x' * 200}1.mp4", f"{'c' * 200}/{'x' * 200}2.mp4"))
    assert len({v.key for v in manifest.videos}) == 2
    assert max(len(v.key) for v in manifest.videos) <= 120


def test_labels_that_are_numbers_are_ordered_as_numbers(videos: Path) -> None:
    file = write_file(videos, "path,label\njump/a.mp4,10\njump/b.avi,9\nrun/c.webm,2\n")
    assert read_manifest(videos, file).classes == ("2", "9", "10")


def test_intervals_of_one_video_get_keys_with_their_times(videos: Path) -> None:
    file = write_file(videos, "path,label,start_s,end_s\njump/a.mp4,x,0,1.5\njump/a.mp4,x,1.5,\nrun/c.webm,x,3,4\n")
    assert {video.key for video in read_manifest(videos, file).videos} == {
        "jump-a-0000000-0001500",
        "jump-a-0001500-end",
        "run-c",
    }


def test_a_group_with_given_splits_is_wrong_usage(videos: Path) -> None:
    with pytest.raises(UsageError, match="--group cannot be used here"):
        read_manifest(videos, write_file(videos, "path,label,split\njump/a.mp4,x,train\n"), group="a")


def test_a_manifest_is_equal_after_conversion_to_a_table_and_back(videos: Path) -> None:
    file = write_file(videos, "path,label,start_s,end_s\njump/a.mp4,x,0.1,1.5\ngone.mp4,y,,\n")
    manifest = read_manifest(videos, file)
    assert Manifest.from_table(manifest.table()) == manifest
    assert Manifest.from_table(manifest.table()).fingerprint() == manifest.fingerprint()


def test_the_fingerprint_changes_with_any_row_or_class(videos: Path) -> None:
    texts = [
        "jump/a.mp4,x,0.1,\n",
        "jump/b.avi,x,0.1,\n",
        "jump/a.mp4,y,0.1,\n",
        "jump/a.mp4,x,0.2,\n",
        "jump/a.mp4,x,,\n",
    ]
    prints = {
        read_manifest(videos, write_file(videos, "path,label,start_s,end_s\n" + text)).fingerprint() for text in texts
    }
    assert len(prints) == len(texts)


def test_the_description_has_the_classes_and_the_videos_by_split() -> None:
    videos = (
        Video("a", "a.mp4", None, None, "test"),
        Video("b", "b.mp4", 0, "run", "train"),
        Video("c", "c.mp4", 1, "jump", "train"),
    )
    assert Manifest(videos, ("run", "jump")).describe() == (
        "3 listed videos in 2 classes (run, jump); videos by split: test 1 (1 without a label), train 2"
    )


def test_a_single_class_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_manifest(create_files(tmp_path, "run/a.mp4"))
    assert caplog.messages == ["there is only one class, run: a network cannot learn from it"]
