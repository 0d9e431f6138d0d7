import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.read import detect_format, read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file

KINETICS = "label,youtube_id,time_start,time_end,split\n"


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
    with pytest.raises(UserError, match="contains no annotations; accepted formats: CSV with the columns path,label; "):
        read_manifest(videos, create_files(tmp_path / "none", "x.mp4"))
    with pytest.raises(UserError, match=r"x\.json is empty"):
        read_manifest(videos, create_files(tmp_path / "empty", "a.txt", "x.json"))


def test_a_split_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    create_files(tmp_path, "v/x.avi", "ucf/trainlist01.txt", "hmdb/wave_test_split1.txt")
    for folder in ("ucf", "hmdb"):
        with pytest.raises(UserError, match="has no split 7"):
            read_manifest(tmp_path / "v", tmp_path / folder, split_number=7)
    with pytest.raises(UsageError, match="belongs to split 1, not 2"):
        read_manifest(tmp_path / "v", tmp_path / "ucf/trainlist01.txt", split_number=2)
    csv = write_file(create_files(tmp_path / "csv", "notes.md"), "path,label\nx.avi,a\n", "split1.csv")
    for annotations in (csv, csv.parent):
        with pytest.raises(UsageError, match="applies only to the lists of UCF101 and HMDB51"):
            read_manifest(tmp_path / "v", annotations, split_number=2)


def test_a_class_list_sets_the_labels(videos: Path) -> None:
    classes = write_file(videos, "walk\nrun\njump\n", "classes.txt")
    file = write_file(videos, "path,label\njump/a.mp4,jump\n")
    manifest = read_manifest(videos, file, classes=classes)
    assert manifest.classes == ("walk", "run", "jump")
    assert manifest.videos[0].label == 2
    with pytest.raises(UserError, match="line 2: class 'swim' is not in the list of 3 classes"):
        read_manifest(videos, write_file(videos, "path,label\njump/a.mp4,swim\n"), classes=classes)


def test_the_format_of_a_folder_is_that_of_its_lists(tmp_path: Path) -> None:
    create_files(
        tmp_path, "ucf/trainlist01.txt", "ucf/classInd.txt", "hmdb/wave_test_split1.txt", "csv/x.mp4", "mm/x.mp4"
    )
    write_file(tmp_path / "csv", "path,label\n", "train.csv")
    write_file(tmp_path / "csv", KINETICS, "val.csv")
    write_file(tmp_path / "mm", "a.mp4 3\n", "a_train.txt")
    write_file(tmp_path / "mm", "run\n", "label_map.txt")
    found = {folder.name: detect_format(folder) for folder in tmp_path.iterdir()}
    assert {name: (kind, [file.name for file in files]) for name, (kind, files) in found.items()} == {
        "ucf": ("ucf101", ["trainlist01.txt"]),
        "hmdb": ("hmdb51", ["wave_test_split1.txt"]),
        "csv": ("csv", ["train.csv", "val.csv"]),
        "mm": ("video list", ["a_train.txt"]),
    }


def test_lists_of_several_formats_in_a_folder_are_an_error(tmp_path: Path) -> None:
    create_files(tmp_path, "v/x.mp4", "lists/notes.md")
    write_file(tmp_path / "lists", "x.mp4 3\n", "a_train.txt")
    write_file(tmp_path / "lists", "path,label\nx.mp4,a\n", "b.csv")
    with pytest.raises(UserError, match=r"several formats \(a_train.txt: mmaction2 .* and b.csv: CSV .*give one of"):
        read_manifest(tmp_path / "v", tmp_path / "lists")


def test_a_list_that_cannot_be_read_is_an_error_if_its_split_would_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_files(tmp_path, "v/x.mp4", "lists/notes.md")
    write_file(tmp_path / "lists", "x.mp4 3\n", "train.txt")
    write_file(tmp_path / "lists", "x/frames 9 3\n", "train_list_rawframes.txt")
    write_file(tmp_path / "lists", "some notes\n", "readme.txt")
    with caplog.at_level(logging.WARNING):
        read_manifest(tmp_path / "v", tmp_path / "lists")
    assert "ignored: " in caplog.text
    assert "train_list_rawframes.txt lists folders of frames" in caplog.text
    assert "readme" not in caplog.text
    write_file(tmp_path / "lists", "x.mp4 run\n", "val.txt")
    with pytest.raises(UserError, match=r"val\.txt line 1: the label 'run' is not a number"):
        read_manifest(tmp_path / "v", tmp_path / "lists")


def test_an_empty_list_with_an_official_name_is_an_error(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainlist01\.txt lists no videos"):
        read_manifest(videos, write_file(tmp_path, "", "trainlist01.txt"))


def test_two_lists_of_the_same_split_are_an_error(tmp_path: Path) -> None:
    create_files(tmp_path, "v/x.mp4", "lists/notes.md")
    write_file(tmp_path / "lists", "x.mp4 3\n", "a_train.txt")
    write_file(tmp_path / "lists", "x.mp4 3\n", "b_train.txt")
    with pytest.raises(UserError, match=r"a_train.txt and b_train.txt in .* both contain videos of the split train"):
        read_manifest(tmp_path / "v", tmp_path / "lists")


@pytest.mark.parametrize(
    ("name", "text", "format_name"),
    [
        (None, "", "class folders"),
        ("a.csv", "path,label\nrun/c.webm,x\n", "CSV (path,label)"),
        ("a.csv", KINETICS + "run,c,0,1,train\n", "Kinetics CSV ("),
        ("trainlist01.txt", "run/c.avi 1\n", "UCF101 split lists ("),
        ("run_test_split1.txt", "c.avi 1\n", "HMDB51 split lists ("),
    ],
)
def test_the_recognized_format_is_printed_and_kept(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str | None, text: str, format_name: str
) -> None:
    file = write_file(tmp_path, text, name) if name else None
    manifest = read_manifest(videos, file)
    assert manifest.annotations_format.startswith(format_name)
    assert f"{file or videos}: recognized as {manifest.annotations_format}\n" in capsys.readouterr().err


WORDS = (
    "a.mp4",
    "b c.mp4",
    "abcdefghij1",
    " ",
    ",",
    "\n",
    "1",
    "-1",
    "9" * 20,
    "nan",
    "path,label",
    ";",
    "\t",
    '"',
    "\0",
    "/",
)
STARTS = ("", "a.mp4 1\n", "a.mp4,x\n", "a.mp4,x,1,2\n", "abcdefghij1,0902,0.1,0.2,0.3,0.4,11\n", "path,label\n")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "a", "testing"]),
    lambda inside: (
        st.lists(inside, max_size=2)
        | st.dictionaries(st.sampled_from(["subset", "annotations", "segment", "label", "vid_name", "id"]), inside)
    ),
    max_leaves=8,
)
TABLES = st.builds(str.__add__, st.sampled_from(STARTS), st.lists(st.sampled_from(WORDS), max_size=15).map("".join))
DOCUMENTS = VALUES | VALUES.map(lambda value: {"database": {"x": value}}) | VALUES.map(lambda value: [value])


@given(
    text=TABLES | DOCUMENTS.map(json.dumps),
    name=st.sampled_from(["a.csv", "a.txt", "kinetics_test.csv", "trainlist01.txt", "x_test_split1.txt", "a.json"]),
)
@settings(max_examples=150, deadline=None)
def test_any_content_is_read_or_refused_with_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    folder = create_files(tmp_path_factory.mktemp("any"), "v/a.mp4", "v/abcdefghij1.mp4", "v/v_x.mp4")
    try:
        result = len(read_manifest(folder / "v", write_file(folder, text, name)).videos) * "video "
    except UserError as error:
        result = str(error)
    assert result
    assert "\n" not in result
