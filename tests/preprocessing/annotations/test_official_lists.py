from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def test_a_ucf101_label_that_contradicts_the_class_list_is_an_error(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "Archery/v_Archery_g01_c01.avi")
    write_file(tmp_path, "1 Archery\n2 Biking\n", "classInd.txt")
    file = write_file(tmp_path, "Archery/v_Archery_g01_c01.avi 2\n", "trainlist01.txt")
    with pytest.raises(UserError, match=r"trainlist01.txt line 1: class 2 is not Archery"):
        read_manifest(tmp_path / "v", file)


def test_ucf101_lists_give_train_and_test_and_the_class_list_gives_the_labels(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "Biking/v_Biking_g01_c01.avi", "v_Archery_g02_c01.mp4")
    write_file(tmp_path, "1 Biking\n2 Archery\n", "classInd.txt")
    write_file(tmp_path, "Biking/v_Biking_g01_c01.avi 1\nArchery/v_Archery_g02_c01.avi 2\n", "trainlist02.txt")
    write_file(tmp_path, "Archery/v_Archery_g09_c09.avi\n", "testlist02.txt")
    manifest = read_manifest(tmp_path / "v", tmp_path, split_number=2)
    assert manifest == read_manifest(tmp_path / "v", tmp_path / "testlist02.txt")
    assert manifest.classes == ("Biking", "Archery")
    assert [(v.key, v.path, v.label, v.split, v.missing) for v in manifest.videos] == [
        ("v_Archery_g09_c09", "Archery/v_Archery_g09_c09.avi", 1, "test", True),
        ("v_Archery_g02_c01", "v_Archery_g02_c01.mp4", 1, "train", False),
        ("v_Biking_g01_c01", "Biking/v_Biking_g01_c01.avi", 0, "train", False),
    ]


def test_hmdb51_lists_give_train_and_test_without_the_videos_that_the_split_does_not_use(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "wave/a.avi", "wave/b.avi", "wave/c.avi", "run/d.avi")
    write_file(tmp_path, "a.avi 1 \nb.avi 0 \nc.avi 2 \n", "wave_test_split1.txt")
    write_file(tmp_path, "d.avi 1 \n", "run_test_split1.txt")
    write_file(tmp_path, "d.avi 2 \n", "run_test_split2.txt")
    manifest = read_manifest(tmp_path / "v", tmp_path, split_number=1)
    assert manifest == read_manifest(tmp_path / "v", tmp_path / "run_test_split1.txt")
    assert manifest.members == ()
    assert [(v.key, v.class_name, v.split) for v in manifest.videos] == [
        ("c", "wave", "test"),
        ("a", "wave", "train"),
        ("d", "run", "train"),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trainlist01.txt", "line 2: expected a line such as Archery/v_Archery_g01_c01.avi 3, not 'nonsense'"),
        ("wave_test_split1.txt", "line 2: expected the name of a video and 0, 1 or 2, not 'nonsense'"),
    ],
)
def test_a_line_of_a_different_form_is_an_error_with_its_number(tmp_path: Path, name: str, message: str) -> None:
    create_files(tmp_path / "v", "wave/a.avi")
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path / "v", write_file(tmp_path, "\nnonsense\n", name))
