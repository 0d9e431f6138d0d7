import logging
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files


def test_class_folders_give_labels_by_name_at_any_depth(videos: Path) -> None:
    manifest = read_manifest(videos)
    assert manifest.classes == ("jump", "run")
    assert {(v.key, v.path, v.label, v.class_name) for v in manifest.videos} == {
        ("jump-a", "jump/a.mp4", 0, "jump"),
        ("jump-b", "jump/b.avi", 0, "jump"),
        ("run-c", "run/c.webm", 1, "run"),
        ("run-deep-d", "run/deep/d.MKV", 1, "run"),
    }


def test_train_and_val_folders_of_class_folders_are_splits(tmp_path: Path) -> None:
    manifest = read_manifest(create_files(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "validation/run/c.mp4"))
    assert manifest.classes == ("jump", "run")
    assert {v.path: v.split for v in manifest.videos} == {
        "train/run/a.mp4": "train",
        "train/jump/b.mp4": "train",
        "validation/run/c.mp4": "val",
    }


def test_files_that_are_not_videos_are_ignored_with_a_warning(videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_files(videos, "jump/readme.txt", "jump/.hidden.mp4", ".cache/x/y.mp4")
    with caplog.at_level(logging.WARNING):
        assert len(read_manifest(videos).videos) == 4
    assert "not that of a video: jump/readme.txt\n" in caplog.text


def test_a_symbolic_link_to_a_class_folder_is_followed_but_a_loop_of_links_is_not(videos: Path, tmp_path: Path) -> None:
    (videos / "walk").symlink_to(create_files(tmp_path / "elsewhere", "w.mp4"), target_is_directory=True)
    (videos / "jump" / "up").symlink_to(videos, target_is_directory=True)
    assert [v.path for v in read_manifest(videos).videos if v.class_name == "walk"] == ["walk/w.mp4"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is an empty folder"),
        (["a.mp4", "b.mp4"], "a.mp4 (and 1 more) is not in a class folder"),
        (["run/a.mp4", "b.mp4"], "b.mp4 is not in a class folder"),
        (["run/a.txt"], "contains no videos in class folders"),
    ],
)
def test_a_folder_without_class_folders_is_a_clear_error(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_manifest(create_files(tmp_path, *files))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
