from collections import Counter
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.all_splits import split_order
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def members(manifest: Manifest) -> dict[str, list[str]]:
    return {name: list(keys) for name, keys in manifest.members}


def test_the_lists_of_all_splits_of_ucf101_are_one_list_of_videos_with_their_splits(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "Biking/v_Biking_g01_c01.avi")
    write_file(tmp_path, "1 Biking\n2 Archery\n", "classInd.txt")
    for number, (train, test) in enumerate((("01", "02"), ("02", "01")), 1):
        write_file(
            tmp_path,
            f"Biking/v_Biking_g{train}_c01.avi 1\nArchery/v_Archery_g{train}_c01.avi 2\n",
            f"trainlist0{number}.txt",
        )
        write_file(
            tmp_path, f"Biking/v_Biking_g{test}_c01.avi\nArchery/v_Archery_g{test}_c01.avi\n", f"testlist0{number}.txt"
        )
    manifest = read_manifest(tmp_path / "v", tmp_path)
    assert [(video.key, video.split, video.label, video.missing) for video in manifest.videos] == [
        ("v_Archery_g01_c01", "all", 1, True),
        ("v_Archery_g02_c01", "all", 1, True),
        ("v_Biking_g01_c01", "all", 0, False),
        ("v_Biking_g02_c01", "all", 0, True),
    ]
    first, second = ["v_Archery_g01_c01", "v_Biking_g01_c01"], ["v_Archery_g02_c01", "v_Biking_g02_c01"]
    assert members(manifest) == {"train1": first, "test1": second, "train2": second, "test2": first}
    assert list(members(manifest)) == ["train1", "test1", "train2", "test2"]
    assert manifest.describe().endswith("all 4, train1 2, test1 2, train2 2, test2 2")
    one = read_manifest(tmp_path / "v", tmp_path, split_number=2)
    assert Counter(video.split for video in one.videos) == {"train": 2, "test": 2}
    assert one.members == ()


def test_videos_that_no_split_of_hmdb51_uses_are_in_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_files(tmp_path / "v", "wave/a.avi", "wave/b.avi")
    write_file(tmp_path, "a.avi 1 \nb.avi 2 \nc.avi 0 \n", "wave_test_split1.txt")
    write_file(tmp_path, "a.avi 0 \nb.avi 1 \nc.avi 0 \n", "wave_test_split2.txt")
    write_file(tmp_path, "d.avi 1 \n", "run_test_split1.txt")
    manifest = read_manifest(tmp_path / "v", tmp_path)
    assert [(video.key, video.split) for video in manifest.videos] == [(key, "all") for key in "abcd"]
    assert members(manifest) == {"train1": ["a", "d"], "test1": ["b"], "train2": ["b"]}
    assert "the split test1 has no video of the class run, which other splits have" in caplog.text
    assert "the split train1 has no video" not in caplog.text


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"trainlist02.txt": "A/v_A_g02_c01.avi 1\n", "testlist02.txt": "A/v_A_g01_c01.avi\nA/v_A_g02_c01.avi\n"},
            r"testlist02.txt line 2: A/v_A_g02_c01.avi is in test2, but in train2 in .*trainlist02.txt line 1",
        ),
        (
            {"trainlist02.txt": "B/v_A_g01_c01.avi 1\n"},
            r"trainlist02.txt line 1: .* is of the class B, but of A in .*trainlist01.txt line 1: correct one of them",
        ),
        (
            {"classInd.txt": "1 A\n2 B\n", "trainlist02.txt": "B/v_B_g01_c01.avi 1\n"},
            r"trainlist02.txt line 1: class 1 is not B in .*classInd.txt",
        ),
        (
            {"classInd.txt": "1 A\n", "testlist02.txt": "C/v_C_g01_c01.avi\n"},
            "class 'C' is not in the list of 1 classes",
        ),
    ],
)
def test_lists_that_disagree_are_an_error_that_names_the_line(
    tmp_path: Path, lists: dict[str, str], message: str
) -> None:
    create_files(tmp_path / "v", "A/v_A_g01_c01.avi")
    for name, text in {"trainlist01.txt": "A/v_A_g01_c01.avi 1\n", **lists}.items():
        write_file(tmp_path, text, name)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path / "v", tmp_path)


def test_lists_of_one_split_alone_are_its_train_and_test(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "A/v_A_g01_c01.avi")
    write_file(tmp_path, "A/v_A_g01_c01.avi 1\n", "trainlist01.txt")
    manifest = read_manifest(tmp_path / "v", tmp_path)
    assert ([video.split for video in manifest.videos], manifest.members) == (["train"], ())


def test_names_are_sorted_by_number_and_side() -> None:
    names = ["x", "test2", "train10", "val1", "test1", "train2", "train1"]
    assert sorted(names, key=split_order) == ["train1", "val1", "test1", "train2", "test2", "train10", "x"]
