import json
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def write_list(folder: Path, name: str, *videos: tuple[str, int]) -> Path:
    entries = [{"vid_name": each, "label": label, "start_frame": 0, "end_frame": 99} for each, label in videos]
    return write_file(folder, json.dumps(entries), name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_files(tmp_path / "v", "rgb/_8Vy3dlHg2w_00000.mp4", "rgb/b_00001.mp4")
    (tmp_path / "lists").mkdir()
    write_list(tmp_path / "lists", "Diving48_V2_train.json", ("_8Vy3dlHg2w_00000", 1))
    write_list(tmp_path / "lists", "Diving48_V2_test.json", ("b_00001", 0))
    return tmp_path / "lists"


def test_the_lists_give_the_splits_and_the_vocabulary_gives_the_classes(folder: Path) -> None:
    write_list(folder, "Diving48_train.json", ("_8Vy3dlHg2w_00000", 0))  # version 1 is not used beside version 2
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "NoTwis", "PIKE"]]
    write_file(folder, json.dumps(vocabulary), "Diving48_vocab.json")
    manifest = read_manifest(folder.parent / "v", folder)
    assert manifest.classes == ("Back+15som+05Twis+FREE", "Back+15som+NoTwis+PIKE")
    assert [(v.key, v.path, v.label, v.split, v.start_s, v.end_s) for v in manifest.videos] == [
        ("b_00001", "rgb/b_00001.mp4", 0, "test", None, None),
        ("_8Vy3dlHg2w_00000", "rgb/_8Vy3dlHg2w_00000.mp4", 1, "train", None, None),
    ]


def test_without_a_vocabulary_the_numbers_are_the_classes_and_classes_name_them(folder: Path) -> None:
    file = folder / "Diving48_V2_train.json"
    assert read_manifest(folder.parent / "v", file).classes == ("1",)
    names = write_file(folder.parent, "first\nsecond\n", "names.txt")
    (video,) = read_manifest(folder.parent / "v", file, classes=names).videos
    assert (video.label, video.class_name) == (1, "second")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"vid_name": "b_00001", "label": 2}]', "entry 1: the label 2 has no name: .* labels 0 to 0"),
        ('[{"vid_name": "b_00001", "label": "x"}]', "entry 1: expected"),
        ('[{"vid_name": "b_00001", "label": 0}, 3]', "entry 2: expected"),
        ('[{"vid_name": "b_00001", "label": 0}, {"vid_name": "b_00001", "label": 0}]', "b_00001.mp4 is already listed"),
    ],
)
def test_other_entries_are_errors_that_name_the_entry(folder: Path, text: str, message: str) -> None:
    write_file(folder, '[["Back"]]', "Diving48_vocab.json")
    with pytest.raises(UserError, match=message):
        read_manifest(folder.parent / "v", write_file(folder, text, "x_train.json"))


@pytest.mark.parametrize("text", ["[]", '["Back"]', "[[]]", '[["a"], ["a"]]', "{}"])
def test_another_vocabulary_is_an_error(folder: Path, text: str) -> None:
    write_file(folder, text, "Diving48_vocab.json")
    with pytest.raises(UserError, match=r"Diving48_vocab\.json"):
        read_manifest(folder.parent / "v", folder / "Diving48_V2_train.json")
