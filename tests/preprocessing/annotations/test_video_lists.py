from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file

MMACTION2 = {
    "kinetics400_train_list_videos.txt": "jump it/a.mp4 1\nrun/b 2.mp4 0\n",
    "kinetics400_val_list_videos.txt": "jump it/c.mp4 1\n",
}


def write_lists(folder: Path, lists: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in lists.items():
        write_file(folder, text, name)
    return folder


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    create_files(tmp_path / "v", "videos_train/jump it/a.mp4", "videos_train/run/b 2.webm", "videos_val/jump it/c.mp4")
    return write_lists(tmp_path / "lists", MMACTION2)


def rows(
    tmp_path: Path, annotations: Path, classes: Path | None = None
) -> list[tuple[str, str, int | None, str | None]]:
    manifest = read_manifest(tmp_path / "v", annotations, classes=classes)
    return [(video.path, video.split, video.label, video.class_name) for video in manifest.videos]


def test_a_folder_of_mmaction2_lists_gives_splits_and_the_label_map_gives_names(lists: Path, tmp_path: Path) -> None:
    write_file(lists, "running\njumping\nwalking\n", "label_map_k400.txt")
    write_file(lists, "jump it/a 163 1\n", "kinetics400_train_list_rawframes.txt")
    assert rows(tmp_path, lists) == [
        ("videos_train/jump it/a.mp4", "train", 1, "jumping"),
        ("videos_train/run/b 2.webm", "train", 0, "running"),
        ("videos_val/jump it/c.mp4", "val", 1, "jumping"),
    ]
    assert read_manifest(tmp_path / "v", lists).classes == ("running", "jumping", "walking")


def test_without_a_label_map_the_numbers_are_the_classes(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [(label, name) for _, _, label, name in rows(tmp_path, lists)] == [(1, "1"), (0, "0"), (1, "1")]
    printed = capsys.readouterr().err
    assert "recognized as mmaction2 or SlowFast video list" in printed
    assert "classes are named by their numbers" in printed


def test_classes_have_precedence_over_the_label_map(lists: Path, tmp_path: Path) -> None:
    write_file(lists, "running\njumping\n", "label_map.txt")
    names = write_file(tmp_path, "r\nj\n", "names.txt")
    assert {name for *_, name in rows(tmp_path, lists, names)} == {"r", "j"}


def test_one_list_has_the_split_of_its_name(lists: Path, tmp_path: Path) -> None:
    assert [split for _, split, _, _ in rows(tmp_path, lists / "kinetics400_val_list_videos.txt")] == ["val"]


def test_a_video_of_another_folder_with_the_same_name_is_not_used(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "a/1.mp4", "b/2.mp4")
    manifest = read_manifest(tmp_path / "v", write_file(tmp_path, "a/1.mp4 0\na/2.mp4 0\n", "list.txt"))
    assert {video.path: video.missing for video in manifest.videos} == {"a/1.mp4": False, "a/2.mp4": True}


def test_lists_of_several_splits_are_chosen_by_the_split_number(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "a/1.avi", "a/2.avi")
    lists = write_lists(
        tmp_path / "lists",
        {
            f"ucf101_{split}_split_{number}_videos.txt": f"a/{1 + (index + number) % 2}.avi 0\n"
            for index, split in enumerate(("train", "val"))
            for number in (1, 2)
        },
    )
    splits = [
        {video.split: video.path for video in read_manifest(tmp_path / "v", lists, split_number=number).videos}
        for number in (1, 2)
    ]
    assert splits == [{"train": "a/2.avi", "val": "a/1.avi"}, {"train": "a/1.avi", "val": "a/2.avi"}]
    everything = read_manifest(tmp_path / "v", lists)
    assert [(video.path, video.split) for video in everything.videos] == [("a/1.avi", "all"), ("a/2.avi", "all")]
    assert everything.members == (
        ("train1", ("a-2",)),
        ("val1", ("a-1",)),
        ("train2", ("a-1",)),
        ("val2", ("a-2",)),
    )
    with pytest.raises(UserError, match="has no split 3"):
        read_manifest(tmp_path / "v", lists, split_number=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 0\na.mp4 1 2\n", "line 2: 2 numbers after the path"),
        ("a.mp4 0\nb.mp4\n", "line 2: expected the path of a video and the number of its class, not 'b.mp4'"),
        ("a.mp4 -1\n", "line 1: the label -1 is negative"),
        ("a.mp4 0\n../b.mp4 1\n", "line 2: ../b.mp4 is outside"),
        ("a.mp4 0\na.mp4 1\n", "line 2: a.mp4 is already listed in"),
        ("x/gone.mp4 0\n", "contains none of the 1 listed videos"),
        ("twice.mp4 0\n", "has several files for twice.mp4, such as"),
    ],
)
def test_an_error_in_a_list_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    create_files(tmp_path / "v", "a.mp4", "b.mp4", "1/twice.mp4", "2/twice.mp4")
    with pytest.raises(UserError, match=message) as error:
        read_manifest(tmp_path / "v", write_file(tmp_path, text, "list.txt"))
    assert "\n" not in str(error.value)


def test_a_number_without_a_name_and_several_label_maps_are_errors(lists: Path, tmp_path: Path) -> None:
    write_file(lists, "running\n", "label_map_a.txt")
    with pytest.raises(UserError, match=r"line 1: the label 1 has no name: .* 1 classes, which are the labels 0 to 0"):
        rows(tmp_path, lists)
    write_file(lists, "running\n", "label_map_b.txt")
    with pytest.raises(UserError, match=r"label_map_a\.txt and label_map_b\.txt: give the right one"):
        rows(tmp_path, lists)


def test_a_csv_without_header_has_names_or_numbers_of_classes(videos: Path, tmp_path: Path) -> None:
    named = write_file(tmp_path, 'jump/a.mp4,"jump, high"\n\nrun/c.webm, run \n')
    assert {v.path: v.class_name for v in read_manifest(videos, named).videos} == {
        "jump/a.mp4": "jump, high",
        "run/c.webm": "run",
    }
    write_file(tmp_path, "running\njumping\n", "label_map.txt")
    numbered = write_file(tmp_path, "jump/a.mp4,1\nrun/c.webm,0\n")
    assert {v.path: v.class_name for v in read_manifest(videos, numbered).videos} == {
        "jump/a.mp4": "jumping",
        "run/c.webm": "running",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jump/a.mp4,x\nrun/c.webm\n", "line 2: expected 2 values separated by commas, as in line 1, not 'run/c.webm'"),
        ("jump/a.mp4,x\nrun/c.webm,a,b\n", "line 2: expected 2 values"),
        ("jump/a.mp4,x\nrun/c.webm,\n", "line 2: expected 2 values"),
        ('jump/a.mp4,x\n"run/c.webm,x\n', "line 2: not a valid CSV file"),
        ("jump/a.mp4,x\n/etc/c.webm,x\n", "line 2: /etc/c.webm is outside"),
    ],
)
def test_an_error_in_a_csv_without_header_names_the_line(videos: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_manifest(videos, write_file(tmp_path, text))
