import logging
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_csv_rows_keep_split_key_and_times(videos: Path) -> None:
    file = write_file(
        videos,
        "\ufeffpath, Label,split,key,start_s,end_s,note\r\njump/a.mp4,Jump,train,first,,,x\r\n"
        'run/c.webm,"Run, fast",test,second,1.5,3\r\n\r\nrun/gone.mp4,Jump,train,third,2,\r\n',
    )
    manifest = read_manifest(videos, file)
    assert manifest.classes == ("Jump", "Run, fast")
    assert manifest.videos == (
        Video("second", "run/c.webm", 1, "Run, fast", "test", 1.5, 3.0),
        Video("first", "jump/a.mp4", 0, "Jump", "train"),
        Video("third", "run/gone.mp4", 0, "Jump", "train", 2.0, None, missing=True),
    )


def test_paths_may_be_absolute_inside_the_folder_only(videos: Path) -> None:
    file = write_file(videos, f"path,label\n{videos}/jump/a.mp4,x\njump/../run/c.webm,x\n")
    assert {v.path for v in read_manifest(videos, file).videos} == {"jump/a.mp4", "run/c.webm"}


@pytest.mark.parametrize("path", ["../secret.mp4", "jump/../../secret.mp4", "/etc/passwd", "..", "."])
def test_a_path_outside_the_folder_is_refused(videos: Path, path: str) -> None:
    create_files(videos.parent, "secret.mp4")
    with pytest.raises(UserError, match=r"a path outside .* in 1 row \(line 3\)"):
        read_manifest(videos, write_file(videos, f"path,label\njump/a.mp4,x\n{path},x\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns (none) but requires path,label"),
        ("file,class\na,b\n", "has the columns file,class but requires path,label"),
        ("path;label\na;b\n", "has the columns path;label but requires path,label"),
        ("path,label,label\na,b,c\n", "more than one column named label"),
        ("path,label\n", "lists no videos"),
        ("path,label\n" + "a.mp4,\n" * 7, "no label in 7 rows (lines 2, 3, 4, 5, 6, ...)"),
        ("path,label\n ,x\n", "no path in 1 row (line 2)"),
        ("path,label,split\na,x,train\nb,x,\n", "no split in 1 row (line 3)"),
        ("path,label,split\na,x,tr/ain\n", "a split with characters other than"),
        ("path,label,key\na,x,k.1\n", "a key with characters other than"),
        ("path,label,key\na,x,k\nb,x,k\n", "line 3: key k is already used in"),
        ("path,label\na,x\n./a,x\n", "line 3: a is already listed in"),
        ("path,label,start_s,end_s\na,x,2,2\n", "a start_s that is not before end_s in 1 row (line 2)"),
        ("path,label,start_s\na,x,soon\n", "an invalid start_s (not a number of seconds)"),
        ("path,label,end_s\na,x,inf\n", "an invalid end_s (not a number of seconds)"),
        ("path,label\na,b,c\n", "line 2: 3 values for 2 columns"),
        ('path,label\n"a,b\n', "line 2: not a valid CSV file"),
        ("path,label\né,b\n".encode("latin-1"), "line 2: not UTF-8 text"),
        ("label,youtube_id\na,b\n", "but requires label,youtube_id,time_start,time_end"),
        ("path,label\ngone1.mp4,a\ngone2.mp4,a\n", "contains none of the 2 listed videos, such as gone1.mp4"),
    ],
)
def test_an_error_in_a_csv_file_is_one_line(videos: Path, text: str | bytes, message: str) -> None:
    create_files(videos, "a", "b")
    with pytest.raises(UserError) as error:
        read_manifest(videos, write_file(videos.parent, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "air drumming/-aBc_123xyz_000005_000015.mp4",
        "air_drumming/-aBc_123xyz_000005_000015.webm",
        "val/air drumming/-aBc_123xyz_000005_000015.mp4.mkv",
        "val_256/-aBc_123xyz_000005_000015.avi",
        "-aBc_123xyz_000005_000015.mp4",
    ],
)
def test_trimmed_kinetics_files_are_found_in_every_usual_folder_layout(tmp_path: Path, path: str) -> None:
    file = write_file(tmp_path, KINETICS + "air drumming,-aBc_123xyz,5,15,validate,0\n")
    (video,) = read_manifest(create_files(tmp_path / "v", path), file).videos
    assert video == Video("-aBc_123xyz_000005_000015", path, 0, "air drumming", "val")


def test_complete_kinetics_videos_are_cut_at_the_annotated_times(tmp_path: Path) -> None:
    file = write_file(tmp_path, KINETICS + "a,abcdefghijk,5,15,train,0\na,abcdefghijk,20,30,train,0\n")
    manifest = read_manifest(create_files(tmp_path / "v", "abcdefghijk.mp4"), file)
    assert [(v.key, v.path, v.start_s, v.end_s) for v in manifest.videos] == [
        ("abcdefghijk_000005_000015", "abcdefghijk.mp4", 5.0, 15.0),
        ("abcdefghijk_000020_000030", "abcdefghijk.mp4", 20.0, 30.0),
    ]


def test_of_several_kinetics_files_the_one_of_the_class_and_split_is_used(tmp_path: Path) -> None:
    name = "abcdefghijk_000005_000015.mp4"
    create_files(
        tmp_path / "v", *(f"{split}/{folder}/{name}" for split in ("train", "val") for folder in ("other", "a_b"))
    )
    file = write_file(tmp_path, KINETICS + "a b,abcdefghijk,5,15,val,0\n")
    assert read_manifest(tmp_path / "v", file).videos[0].path == f"val/a_b/{name}"


def test_repeated_kinetics_rows_are_ignored_and_contradictions_are_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_files(tmp_path / "v", "abcdefghijk.mp4")
    row = "a,abcdefghijk,5,15,train,0\n"
    with caplog.at_level(logging.WARNING):
        assert len(read_manifest(tmp_path / "v", write_file(tmp_path, KINETICS + row + row)).videos) == 1
    assert "rows that repeat another row are ignored: 1" in caplog.text
    with pytest.raises(UserError, match=r"line 3: .* is 'b' in train, but 'a' in train in .* line 2"):
        read_manifest(tmp_path / "v", write_file(tmp_path, KINETICS + row + row.replace("a,", "b,", 1)))


def test_train_and_val_lists_in_a_folder_share_the_classes(tmp_path: Path) -> None:
    create_files(tmp_path / "v", "x1.mp4", "x2.mp4")
    lists = create_files(tmp_path / "lists")
    lists.mkdir()
    write_file(lists, "path,label\nx1.mp4,b\n", "my_train.csv")
    write_file(lists, "path,label\nx2.mp4,a\n", "my_val.csv")
    manifest = read_manifest(tmp_path / "v", lists)
    assert manifest.classes == ("a", "b")
    assert {v.path: v.split for v in manifest.videos} == {"x1.mp4": "train", "x2.mp4": "val"}
    write_file(lists, "path,label,split\nx2.mp4,a,val\n", "other.csv")
    with pytest.raises(UserError, match=r"my_val.csv and other.csv in .* both contain videos of the split val"):
        read_manifest(tmp_path / "v", lists)
