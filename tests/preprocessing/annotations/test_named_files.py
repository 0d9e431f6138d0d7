from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.named_files import LabelNames, find_label_map, locate, relative_path
from lgd.preprocessing.video.files import VideoFiles
from tests.preprocessing.annotations.conftest import create_files, write_file


@pytest.mark.parametrize(
    ("path", "split", "found"),
    [
        ("run/a.mp4", None, "run/a.mp4"),
        ("run/a.avi", None, "run/a.mp4"),  # resized to another container
        ("a.mp4", None, "run/a.mp4"),
        ("jump/a.mp4", None, None),  # of another class
        ("un/a.mp4", None, None),
        ("c d/b.mp4", "train", "videos_train/c d/b.mkv"),
        ("c d/b.mp4", "val", "validation/c d/b.mkv"),
        ("gone.mp4", "val", None),
    ],
)
def test_listed_paths_are_found_in_other_folders_and_with_other_extensions(
    tmp_path: Path, path: str, split: str | None, found: str | None
) -> None:
    create_files(tmp_path, "run/a.mp4", "videos_train/c d/b.mkv", "validation/c d/b.mkv")
    assert locate(VideoFiles(Storage(tmp_path)), path, split) == found


@pytest.mark.parametrize("split", [None, "test"])
def test_several_files_for_a_path_are_an_error_if_the_split_does_not_decide(tmp_path: Path, split: str | None) -> None:
    create_files(tmp_path, "train/a.mp4", "val/a.mp4")
    with pytest.raises(UserError, match=r"several files for a\.mp4, such as train/a\.mp4 and val/a\.mp4"):
        locate(VideoFiles(Storage(tmp_path)), "a.mp4", split)


def test_paths_are_relative_to_the_folder_or_outside(tmp_path: Path) -> None:
    folder = Storage(tmp_path)
    assert relative_path(folder, f"{tmp_path}/./a/../b.mp4") == "b.mp4"
    assert [relative_path(folder, path) for path in ("../b.mp4", "/b.mp4", ".", "a\0")] == [None] * 4


def test_labels_are_named_by_the_label_map_beside_the_list(tmp_path: Path) -> None:
    assert find_label_map(tmp_path) is None
    assert LabelNames.beside(tmp_path / "list.txt", None).name(12, "here") == "12"
    label_map = write_file(tmp_path, "run\njump\n", "Kinetics_Label_Map_k400.txt")
    names = LabelNames.beside(tmp_path / "list.txt", None)
    assert (names.source, names.name(1, "here")) == (label_map, "jump")
    for label in (2, -1):
        with pytest.raises(UserError, match=rf"here: the label {label} has no name: .* labels 0 to 1"):
            names.name(label, "here")
