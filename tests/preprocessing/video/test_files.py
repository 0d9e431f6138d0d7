"""Listing and finding video files."""

import os
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.video.files import VideoFiles, local_file, stem_of


def files_of(folder: Path, *names: str) -> VideoFiles:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return VideoFiles(Storage(folder))


def test_files_are_listed_by_extension_and_hidden_ones_are_skipped(tmp_path: Path) -> None:
    files = files_of(tmp_path, "b.MP4", "a/c.webm", "a/list.txt", ".hidden.mp4", ".git/d.mp4")
    assert files.paths == ("a/c.webm", "b.MP4")
    assert files.other_files == ("a/list.txt",)
    assert files.exists("a/list.txt")
    assert files.exists(".hidden.mp4")
    assert not files.exists("a")
    assert not files.exists("absent.mp4")


def test_links_are_followed_once(tmp_path: Path) -> None:
    files = files_of(tmp_path, "videos/a.mp4")
    (tmp_path / "videos" / "loop").symlink_to(tmp_path / "videos")
    (tmp_path / "linked").symlink_to(tmp_path / "videos")
    assert files.paths == ("linked/a.mp4", "videos/a.mp4")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a/b.mp4", "b"), ("x.mp4.webm", "x"), ("v1.0.avi", "v1.0"), ("no-extension", "no-extension"), ("x.txt", "x.txt")],
)
def test_a_stem_has_no_video_extension(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_a_file_is_found_by_class_then_by_split_then_by_order(tmp_path: Path) -> None:
    files = files_of(
        tmp_path, "train/tai_chi/x.mp4", "val_256/tai_chi/x.mp4", "val/other/x.mp4", "a/y.mp4", "b/y.mp4", "z.mp4"
    )
    assert files.find("x", "Tai Chi", "val") == "val_256/tai_chi/x.mp4"
    assert files.find("x", "tai chi", "train") == "train/tai_chi/x.mp4"
    assert files.find("x", "tai chi", "test") == "train/tai_chi/x.mp4"
    assert files.find("y", "tai chi", "val") == "a/y.mp4"
    assert files.find("z", "tai chi", None) == "z.mp4"
    assert files.find("absent", "tai chi", None) is None


def test_a_name_that_is_not_utf8_and_an_unreadable_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file or directory"):
        _ = VideoFiles(Storage(tmp_path / "absent")).paths
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.mp4", os.O_CREAT))
    with pytest.raises(UserError, match=r"the file name b'\\xff.mp4' is not UTF-8; rename the file"):
        _ = VideoFiles(Storage(tmp_path)).paths


def test_a_local_video_is_not_copied(tmp_path: Path) -> None:
    with local_file(Storage(tmp_path), "a/v.mp4") as path:
        assert path == tmp_path / "a" / "v.mp4"
