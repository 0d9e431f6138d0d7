import os
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.read import detect_format, read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def test_a_missing_folder_and_a_file_instead_of_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a folder"):
        read_manifest(create_files(tmp_path, "file.mp4") / "file.mp4")


def test_a_file_name_that_is_not_utf8_is_a_clear_error(videos: Path) -> None:
    os.close(os.open(os.fsencode(videos / "run") + b"/\xff.mp4", os.O_CREAT))
    with pytest.raises(UserError, match="is not UTF-8; rename the file"):
        read_manifest(videos)


def test_missing_annotations_are_a_clear_error(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv do not exist"):
        read_manifest(videos, tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="contains no annotations"):
        read_manifest(videos, create_files(tmp_path / "empty", "x.json"))


def test_a_split_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    create_files(tmp_path, "v/x.avi", "ucf/trainlist01.txt", "hmdb/wave_test_split1.txt")
    for folder in ("ucf", "hmdb"):
        with pytest.raises(UserError, match="has no split 7"):
            read_manifest(tmp_path / "v", tmp_path / folder, split_number=7)
    with pytest.raises(UsageError, match="belongs to split 1, not 2"):
        read_manifest(tmp_path / "v", tmp_path / "ucf/trainlist01.txt", split_number=2)
    with pytest.raises(UsageError, match="applies only to the lists of UCF101 and HMDB51"):
        read_manifest(tmp_path / "v", write_file(tmp_path, "path,label\nx.avi,a\n"), split_number=2)


def test_a_class_list_sets_the_labels(videos: Path) -> None:
    classes = write_file(videos, "walk\nrun\njump\n", "classes.txt")
    file = write_file(videos, "path,label\njump/a.mp4,jump\n")
    manifest = read_manifest(videos, file, classes=classes)
    assert manifest.classes == ("walk", "run", "jump")
    assert manifest.videos[0].label == 2
    with pytest.raises(UserError, match="line 2: class 'swim' is not in the list of 3 classes"):
        read_manifest(videos, write_file(videos, "path,label\njump/a.mp4,swim\n"), classes=classes)


def test_the_format_is_detected_by_the_names_of_the_files(tmp_path: Path) -> None:
    create_files(tmp_path, "ucf/trainlist01.txt", "ucf/classInd.txt", "hmdb/wave_test_split1.txt", "csv/train.csv")
    formats = {path.name: detect_format(path) for path in (*tmp_path.iterdir(), *tmp_path.glob("*/*"))}
    assert formats == {
        "ucf": "ucf101",
        "trainlist01.txt": "ucf101",
        "classInd.txt": "csv",
        "hmdb": "hmdb51",
        "wave_test_split1.txt": "hmdb51",
        "csv": "csv folder",
        "train.csv": "csv",
    }
