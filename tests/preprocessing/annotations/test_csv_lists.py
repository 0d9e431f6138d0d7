import logging
import unicodedata
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
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
        ("", "is empty: it lists no videos"),
        ("file,class\na,b\n", "has the columns file,class but requires path,label"),
        ("path;label\na;b\n", "is separated by semicolons: save it with commas"),
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


def in_two_forms(text: str) -> tuple[str, str]:
    """Return a name with composed letters (NFC) and with decomposed ones (NFD)."""
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def test_spaces_around_values_do_not_count(tmp_path: Path) -> None:
    folder = create_files(tmp_path / "v", "a.mp4", "b c.mp4", " d.mp4", "e.mp4 ")
    file = write_file(
        tmp_path, 'path , label,split\n a.mp4 , "x, y",train\nb c.mp4\t,x,val \n d.mp4,x,train\n"e.mp4 ", x,train\n'
    )
    manifest = read_manifest(folder, file)
    assert {(v.path, v.key, v.class_name, v.missing) for v in manifest.videos} == {
        ("a.mp4", "a", "x, y", False),
        ("b c.mp4", "b_c", "x", False),
        (" d.mp4", "d", "x", False),
        ("e.mp4 ", "e", "x", False),
    }


def test_a_file_whose_name_has_spaces_is_preferred_if_the_list_quotes_them(tmp_path: Path) -> None:
    folder = create_files(tmp_path / "v", "a.mp4", " a.mp4", "b.mp4")
    for text, path in (('" a.mp4"', " a.mp4"), ("a.mp4", "a.mp4"), (" b.mp4", "b.mp4")):
        (video,) = read_manifest(folder, write_file(tmp_path, f"path,label\n{text},x\n")).videos
        assert video.path == path


@pytest.mark.parametrize("listed", [0, 1])
def test_composed_and_decomposed_letters_are_the_same_name(tmp_path: Path, listed: int) -> None:
    folder, name = in_two_forms("ballé")[1 - listed], in_two_forms("비디오")
    path = f"{folder}/{name[1 - listed]}.mp4"
    create_files(tmp_path / "v", path)
    row = f"{in_two_forms('ballé')[listed]}/{name[listed]}.mp4,{in_two_forms('é')[listed]}\n"
    (video,) = read_manifest(tmp_path / "v", write_file(tmp_path, f"path,label\n{row}")).videos
    assert (video.path, video.missing, video.class_name) == (path, False, in_two_forms("é")[0])
    (other,) = read_manifest(tmp_path / "v").videos
    assert other.key == video.key  # also of names that only a hash distinguishes
    assert other.class_name == in_two_forms("ballé")[0]


def test_classes_in_two_forms_are_one_class(tmp_path: Path) -> None:
    one, two = in_two_forms("é")
    create_files(tmp_path / "v", f"{one}/a.mp4", f"{two}/b.mp4", "f/c.mp4")
    assert read_manifest(tmp_path / "v").classes == ("f", one)
    classes = write_file(tmp_path, f"{two}\nf\n", "classes.txt")
    assert read_manifest(tmp_path / "v", classes=classes).classes == (one, "f")
    file = write_file(tmp_path, f"path,label\n{one}/a.mp4,{one}\n{two}/b.mp4,{two}\n")
    assert [video.label for video in read_manifest(tmp_path / "v", file).videos] == [0, 0]
    with pytest.raises(UserError, match="is already listed in line 1"):
        read_manifest(tmp_path / "v", classes=write_file(tmp_path, f"{one}\n{two}\nf\n", "classes.txt"))


def test_kinetics_files_are_found_by_class_in_both_forms(tmp_path: Path) -> None:
    one, two = in_two_forms("dancing ballé")
    name = "abcdefghijk_000005_000015.mp4"
    create_files(tmp_path / "v", f"{two}/{name}", f"a/{name}")
    file = write_file(tmp_path, KINETICS + f"{one},abcdefghijk,5,15,val,0\n")
    assert read_manifest(tmp_path / "v", file).videos[0].path == f"{two}/{name}"


@pytest.mark.parametrize(
    ("name", "split"),
    [("training", "train"), ("Train", "train"), ("TEST", "test"), ("valid", "val"), ("Validate", "val"), ("f1", "f1")],
)
def test_usual_names_of_splits_are_those_of_a_dataset(videos: Path, name: str, split: str) -> None:
    file = write_file(videos, f"path,label,split\njump/a.mp4,x, {name} \n")
    assert [video.split for video in read_manifest(videos, file).videos] == [split]
    create_files(videos, "abcdefghijk.mp4")
    file = write_file(videos, KINETICS + f"a,abcdefghijk,5,15,{name},0\n")
    assert [video.split for video in read_manifest(videos, file).videos] == [split]


def test_rows_without_a_label_are_taken_if_requested(videos: Path) -> None:
    text = "path,label\njump/a.mp4,x\njump/b.avi,x\nrun/c.webm, \n"
    with pytest.raises(
        UserError, match=r"no label in 1 row \(line 4\): if the videos have no labels, add --unlabelled"
    ):
        read_manifest(videos, write_file(videos, text))
    manifest = read_manifest(videos, write_file(videos, text), unlabelled=True)
    assert {(v.path, v.label, v.class_name) for v in manifest.videos if v.split == "test"} == {
        ("run/c.webm", None, None)
    }
    assert sorted(v.split for v in manifest.videos) == ["test", "train", "val"]
    text = "path,label,split\njump/a.mp4,x,train\nrun/c.webm,,val\n"
    manifest = read_manifest(videos, write_file(videos, text), unlabelled=True)
    assert [(v.split, v.label) for v in manifest.videos] == [("train", 0), ("val", None)]


def test_a_list_without_the_column_label_needs_the_option_and_the_classes(videos: Path) -> None:
    file = write_file(videos, "path\njump/a.mp4\n")
    with pytest.raises(UserError, match=r"requires path,label .*; if the videos have no labels, add --unlabelled"):
        read_manifest(videos, file)
    with pytest.raises(UserError, match="no video has a label: give the names of the classes with --classes"):
        read_manifest(videos, file, unlabelled=True)
    manifest = read_manifest(videos, file, unlabelled=True, classes=write_file(videos, "run\njump\n", "classes.txt"))
    assert [(v.split, v.label, v.class_name) for v in manifest.videos] == [("test", None, None)]
    assert manifest.classes == ("run", "jump")


@pytest.mark.parametrize(
    "test_list",
    [
        "youtube_id,time_start,time_end,split\nbbbbbbbbbbb,0,10,test\n",
        "label,youtube_id,time_start,time_end,split\n,bbbbbbbbbbb,0,10,testing\n",
        "label,youtube_id,time_start,time_end\n,bbbbbbbbbbb,0,10\n",
        "youtube_id,time_start,time_end\nbbbbbbbbbbb,0,10\n",
    ],
)
def test_the_test_list_of_kinetics_needs_no_labels(tmp_path: Path, test_list: str) -> None:
    folder = create_files(tmp_path / "v", "a/aaaaaaaaaaa.mp4", "test/bbbbbbbbbbb.mp4")
    lists = tmp_path / "lists"
    lists.mkdir()
    write_file(lists, KINETICS + "a,aaaaaaaaaaa,0,10,train,0\n", "train.csv")
    write_file(lists, test_list, "test.csv")
    manifest = read_manifest(folder, lists)
    assert [(v.split, v.label, v.path) for v in manifest.videos] == [
        ("test", None, "test/bbbbbbbbbbb.mp4"),
        ("train", 0, "a/aaaaaaaaaaa.mp4"),
    ]


def test_other_kinetics_lists_need_labels(tmp_path: Path) -> None:
    folder = create_files(tmp_path / "v", "aaaaaaaaaaa.mp4")
    row = "aaaaaaaaaaa,0,10"
    with pytest.raises(UserError, match=r"no label in 1 row \(line 2\)"):
        read_manifest(folder, write_file(tmp_path, f"youtube_id,time_start,time_end,split\n{row},val\n"))
    with pytest.raises(UserError, match="requires label,youtube_id,time_start,time_end"):
        read_manifest(folder, write_file(tmp_path, f"youtube_id,time_start,time_end\n{row}\n"))
    missing = f"youtube_id,time_start,time_end,split\n{row},test\nbbbbbbbbbbb,0,10,test\n"
    classes = write_file(tmp_path, "a\nb\n", "classes.txt")
    videos = read_manifest(folder, write_file(tmp_path, missing), classes=classes).videos
    assert [(v.path, v.missing) for v in videos] == [
        ("aaaaaaaaaaa.mp4", False),
        ("bbbbbbbbbbb_000000_000010.mp4", True),
    ]


def grouped(videos: Path, *groups: str, split: str = "") -> Path:
    """Return a list with one video per group; the name of a group may be given several times."""
    create_files(videos, *(f"{number}.mp4" for number in range(len(groups))))
    rows = [f"{number}.mp4,{number % 2},{group}" for number, group in enumerate(groups)]
    splits = [f",{name}" for name in split.split()] or [""] * len(groups)
    header = "path,label,group,split" if split else "path,label,group"
    return write_file(videos, "\n".join([header, *map(str.__add__, rows, splits)]) + "\n")


def test_videos_of_one_group_stay_in_one_split(videos: Path) -> None:
    names = [f"person {number % 7}" for number in range(35)]
    manifest = read_manifest(videos, grouped(videos, *names), val_fraction=0.3)
    splits: dict[str, set[str]] = {}
    for video in manifest.videos:
        splits.setdefault(names[int(video.key)], set()).add(video.split)
    assert all(len(each) == 1 for each in splits.values())
    assert sum(each == {"val"} for each in splits.values()) == 3  # of 7: the first number that reaches 0.3
    by_name = create_files(videos.parent / "by-name", *(f"{n % 2}/{name} {n}.mp4" for n, name in enumerate(names)))
    other = read_manifest(by_name, group=r"person \d")
    assert {v.path.split("/")[1][:8] for v in other.videos if v.split == "val"} <= set(names)


@pytest.mark.parametrize(
    ("groups", "split", "message"),
    [
        (["p1", "", "p2"], "", "no group in 1 row (line 3)"),
        (["p1", "p1"], "", "the column group gives 'p1' for every video: at least two groups are required"),
        (["p1", "p1", "p2"], "train val val", "line 3: the group 'p1' is in the split val, but in train in"),
        (["p1", "p2", "p1", "p2"], "train val val train", "the group 'p1' (and 1 more) is in the split val"),
    ],
)
def test_groups_that_cannot_stay_in_one_split_are_refused(
    videos: Path, groups: list[str], split: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        read_manifest(videos, grouped(videos, *groups, split=split))
    assert message in str(error.value)


def test_groups_that_agree_with_the_splits_are_accepted(videos: Path) -> None:
    manifest = read_manifest(videos, grouped(videos, "p1", "p1", "p2", split="train train val"))
    assert [video.split for video in manifest.videos] == ["train", "train", "val"]


def test_the_column_and_the_option_group_exclude_each_other(videos: Path) -> None:
    with pytest.raises(UsageError, match="--group cannot be used here: the annotations have the column group"):
        read_manifest(videos, grouped(videos, "p1", "p2"), r"\d")


def test_unlabelled_rows_need_no_group(videos: Path) -> None:
    file = write_file(videos, "path,label,group\njump/a.mp4,x,p\njump/b.avi,x,q\nrun/c.webm,,\n")
    assert sorted(v.split for v in read_manifest(videos, file, unlabelled=True).videos) == ["test", "train", "val"]
