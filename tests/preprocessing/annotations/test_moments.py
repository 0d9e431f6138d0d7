from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("training/bend/a_1.mp4", "validation/bend/a_1.mp4", "training/jump/b, c.mp4")
    folder = create_files(tmp_path / "mit", *names)
    write_file(folder, 'bend/a_1.mp4,bend,3,1\n"jump/b, c.mp4",jump,4,0\n', "trainingSet.csv")
    write_file(folder, "bend/a_1.mp4,bend,12,5\n", "validationSet.csv")
    return folder


def test_the_lists_give_the_splits_and_the_categories_give_the_labels(folder: Path) -> None:
    write_file(folder, "walk,2\njump,0\nbend,1\n", "moments_categories.txt")
    manifest = read_manifest(folder, folder)
    assert manifest.classes == ("jump", "bend", "walk")
    assert [(v.path, v.label, v.split, v.missing) for v in manifest.videos] == [
        ("training/bend/a_1.mp4", 1, "train", False),
        ("training/jump/b, c.mp4", 0, "train", False),
        ("validation/bend/a_1.mp4", 1, "val", False),
    ]


def test_one_list_and_one_folder_of_videos(folder: Path) -> None:
    (video,) = read_manifest(folder / "validation", folder / "validationSet.csv").videos
    assert (video.path, video.class_name, video.split) == ("bend/a_1.mp4", "bend", "val")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("bend/a_1.mp4,bend", "line 2: expected 4 values separated by commas"),
        ("bend/a_1.mp4,bend,3,x", "line 2: expected two counts after the label, not '3,x'"),
        ("../a_1.mp4,bend,3,1", "line 2: ../a_1.mp4 is outside"),
    ],
)
def test_another_row_is_an_error_that_names_the_line(folder: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_manifest(folder, write_file(folder, f"bend/a_1.mp4,bend,3,1\n{row}\n", "trainingSet.csv"))
