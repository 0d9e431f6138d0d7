import logging
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file

BOX = "0.1,0.2,0.3,0.4"
ACTIONS = """label {
  name: "sit"
  label_id: 11
  label_type: PERSON_MOVEMENT
}
item {
  name: "bend/bow (at the waist)"
  id: 1
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_files(tmp_path / "v", "sitting/abcdefghij0_000012_000022.mp4", "abcdefghij1.mp4")
    (tmp_path / "lists").mkdir()
    return tmp_path / "lists"


def test_a_key_frame_with_one_action_is_a_clip_around_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        f"abcdefghij0,0013,{BOX},11",
        "abcdefghij0,0013,0.5,0.5,0.9,0.9,11,2",  # another person with the same action
        f"abcdefghij0,0021,{BOX},1",
        f"abcdefghij1,18.5,{BOX},1",
        f"abcdefghij1,0002,{BOX},1",
        f"abcdefghij1,0002,{BOX},11",
        "abcdefghij1,0005",
        "abcdefghij1,0006,,,,,",
        f"abcdefghij0,0099,{BOX},1",  # not in the trimmed file
    ]
    write_file(folder, ACTIONS, "ava_action_list_v2.2.pbtxt")
    write_file(folder, "", "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    write_file(folder, "0902\n0903\n", "ava_included_timestamps_v2.2.txt")
    file = write_file(folder, "\n".join(rows) + "\n", "kinetics_train_v1.0.csv")
    with caplog.at_level(logging.WARNING):
        manifest = read_manifest(folder.parent / "v", folder)
    assert manifest == read_manifest(folder.parent / "v", file)
    assert manifest.classes == ("bend/bow (at the waist)", "sit")
    assert [(v.key, v.path, v.class_name, v.split, v.start_s, v.end_s, v.missing) for v in manifest.videos] == [
        ("abcdefghij0_0013000", "sitting/abcdefghij0_000012_000022.mp4", "sit", "train", 0.0, 2.5, False),
        (
            "abcdefghij0_0021000",
            "sitting/abcdefghij0_000012_000022.mp4",
            "bend/bow (at the waist)",
            "train",
            7.5,
            10.0,
            False,
        ),
        ("abcdefghij0_0099000", "abcdefghij0.mp4", "bend/bow (at the waist)", "train", 97.5, 100.5, True),
        ("abcdefghij1_0018500", "abcdefghij1.mp4", "bend/bow (at the waist)", "train", 17.0, 20.0, False),
    ]
    assert "key frames with several actions are left out: 1 of 7" in caplog.text
    assert "key frames with no action are left out: 2 of 7" in caplog.text


def test_key_frames_without_an_action_have_no_label_in_the_split_test(folder: Path) -> None:
    write_file(folder, f"abcdefghij1,0013,{BOX},2\n", "kinetics_train_v1.0.csv")
    write_file(folder, f"abcdefghij1,0033,{BOX},2\n", "ava_train_v2.2.csv")  # belongs to the same split
    write_file(folder, "abcdefghij0,0014\n", "kinetics_test_v1.0.csv")
    manifest = read_manifest(folder.parent / "v", folder)
    assert [(v.key, v.class_name, v.split, v.start_s, v.end_s) for v in manifest.videos] == [
        ("abcdefghij0_0014000", None, "test", 0.5, 3.5),
        ("abcdefghij1_0013000", "2", "train", 11.5, 14.5),
        ("abcdefghij1_0033000", "2", "train", 31.5, 34.5),
    ]


def test_without_a_list_of_actions_the_numbers_are_the_classes_and_classes_name_them(folder: Path) -> None:
    file = write_file(folder, f"abcdefghij1,0013,{BOX},2\n", "kinetics_val_v1.0.csv")
    (video,) = read_manifest(folder.parent / "v", file).videos
    assert (video.class_name, video.split) == ("2", "val")
    names = write_file(folder.parent, "bend\ncrouch\n", "names.txt")
    (video,) = read_manifest(folder.parent / "v", file, classes=names).videos
    assert (video.class_name, video.label) == ("crouch", 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"abcdefghij1,soon,{BOX},1", "line 2: expected video_id,timestamp,x1,y1,x2,y2,action_id, not"),
        (f"abcdefghij1,inf,{BOX},1", "line 2: expected video_id"),
        (f"abcdefghij1,-1,{BOX},1", "line 2: expected video_id"),
        (f"abcdefghij1,7,{BOX},x", "line 2: expected video_id"),
        ("abcdefghij1", "line 2: expected video_id"),
        (f"abcdefghij1,7,{BOX},12", "line 2: action 12 is not in"),
    ],
)
def test_another_row_is_an_error_that_names_the_line(folder: Path, row: str, message: str) -> None:
    write_file(folder, ACTIONS, "actions.pbtxt")
    with pytest.raises(UserError, match=message):
        read_manifest(folder.parent / "v", write_file(folder, f"abcdefghij1,0013,{BOX},11\n{row}\n", "a_train.csv"))


def test_a_list_without_a_single_action_is_an_error(folder: Path) -> None:
    file = write_file(folder, f"abcdefghij1,0013,{BOX},11\nabcdefghij1,0013,{BOX},1\n", "a_train.csv")
    with pytest.raises(UserError, match="no video can be used, for the reasons above"):
        read_manifest(folder.parent / "v", file)
