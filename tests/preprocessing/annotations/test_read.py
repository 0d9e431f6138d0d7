import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.manifest import safe_key
from lgd.preprocessing.annotations.read import Manifest, Video, read_manifest


def put(folder: Path, *paths: str) -> Path:
    """Empty files: reading annotations never looks into videos."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def by_key(manifest: Manifest) -> dict[str, Video]:
    return {video.key: video for video in manifest.videos}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return put(tmp_path / "videos", "jump/a.mp4", "jump/b.avi", "run/c.webm", "run/deep/d.MKV")


def csv(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


# Class folders


def test_class_folders_give_labels_by_name_at_any_depth(videos: Path) -> None:
    manifest = read_manifest(videos)
    assert manifest.classes == ("jump", "run")
    assert {(v.key, v.path, v.label, v.class_name) for v in manifest.videos} == {
        ("jump-a", "jump/a.mp4", 0, "jump"),
        ("jump-b", "jump/b.avi", 0, "jump"),
        ("run-c", "run/c.webm", 1, "run"),
        ("run-deep-d", "run/deep/d.MKV", 1, "run"),
    }


def test_rows_are_ordered_by_split_and_key(videos: Path) -> None:
    rows = [(v.split, v.key) for v in read_manifest(videos).videos]
    assert rows == sorted(rows)
    assert {split for split, _ in rows} == {"train", "val"}


def test_train_and_val_folders_of_class_folders_are_splits(tmp_path: Path) -> None:
    manifest = read_manifest(put(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "validation/run/c.mp4"))
    assert manifest.classes == ("jump", "run")
    assert {v.path: v.split for v in manifest.videos} == {
        "train/run/a.mp4": "train",
        "train/jump/b.mp4": "train",
        "validation/run/c.mp4": "val",
    }


def test_files_that_are_no_videos_are_left_out_and_said(videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(videos, "jump/readme.txt", "jump/.hidden.mp4", ".cache/x/y.mp4")
    with caplog.at_level(logging.WARNING):
        assert len(read_manifest(videos).videos) == 4
    assert "1 files are not videos" in caplog.text
    assert "jump/readme.txt" in caplog.text


def test_symlinked_class_folder_is_followed_and_a_loop_of_links_ends(videos: Path, tmp_path: Path) -> None:
    (videos / "walk").symlink_to(put(tmp_path / "elsewhere", "w.mp4"), target_is_directory=True)
    (videos / "jump" / "up").symlink_to(videos, target_is_directory=True)
    assert [v.path for v in read_manifest(videos).videos if v.class_name == "walk"] == ["walk/w.mp4"]


def test_keys_are_safe_unique_and_independent_of_other_files(tmp_path: Path) -> None:
    names = [
        "a b/x.mp4",
        "a b/x.avi",
        "a_b/x.mp4",
        "été/ü.mp4",
        "日本/動画.mp4",
        "c/../c/%03d.mp4",
        "c/-dash.mp4",
        "c/n\nl.mp4",
    ]
    manifest = read_manifest(put(tmp_path / "one", *names))
    keys = [v.key for v in manifest.videos]
    assert len(set(keys)) == len(names)
    assert all(
        key and set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for key in keys
    )
    assert {v.path: v.key for v in manifest.videos}["été/ü.mp4"] == "ete-u"
    again = read_manifest(put(tmp_path / "two", *names[::-1], "z/unrelated.mp4"))
    assert {v.path: v.key for v in again.videos if v.class_name != "z"} == {v.path: v.key for v in manifest.videos}


def test_a_long_path_gives_a_key_that_fits_a_tar_member(tmp_path: Path) -> None:
    manifest = read_manifest(put(tmp_path, f"{'c' * 200}/{'x' * 200}1.mp4", f"{'c' * 200}/{'x' * 200}2.mp4"))
    assert len({v.key for v in manifest.videos}) == 2
    assert max(len(v.key) for v in manifest.videos) <= 120


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "is an empty folder"),
        (["a.mp4", "b.mp4"], "2 videos (a.mp4, ...) lie outside class folders"),
        (["run/a.mp4", "b.mp4"], "1 videos (b.mp4, ...) lie outside class folders"),
        (["run/a.txt"], "holds no videos"),
    ],
)
def test_a_folder_without_class_folders_is_a_clear_error(tmp_path: Path, files: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        read_manifest(put(tmp_path, *files))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_no_such_folder_and_a_file_instead_of_one_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a folder"):
        read_manifest(put(tmp_path, "file.mp4") / "file.mp4")


def test_a_file_name_that_is_not_utf8_is_a_clear_error(videos: Path) -> None:
    os.close(os.open(os.fsencode(videos / "run") + b"/\xff.mp4", os.O_CREAT))
    with pytest.raises(UserError, match="is not UTF-8; rename the file"):
        read_manifest(videos)


# Splits


def test_a_fraction_of_each_class_is_held_out(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{i}.mp4" for name in ("a", "b") for i in range(50)))
    counts = Counter((v.class_name, v.split) for v in read_manifest(tmp_path, val_fraction=0.3).videos)
    assert counts == {("a", "val"): 15, ("a", "train"): 35, ("b", "val"): 15, ("b", "train"): 35}


def test_small_classes_are_in_both_splits_where_they_can_be(tmp_path: Path) -> None:
    two = read_manifest(put(tmp_path / "two", "a/1.mp4", "a/2.mp4", "b/3.mp4"))
    assert Counter((v.class_name, v.split) for v in two.videos) == {
        ("a", "val"): 1,
        ("a", "train"): 1,
        ("b", "train"): 1,
    }
    ones = read_manifest(put(tmp_path / "ones", "a/1.mp4", "b/2.mp4", "c/3.mp4"))
    assert Counter(v.split for v in ones.videos) == {"val": 1, "train": 2}
    nearly_all = read_manifest(tmp_path / "two", val_fraction=0.99)
    assert Counter((v.class_name, v.split) for v in nearly_all.videos)["a", "train"] == 1


def test_the_split_is_the_same_in_another_process(videos: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lgd.preprocessing.annotations.read import read_manifest; "
        "print(read_manifest(Path(sys.argv[1])).fingerprint())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", script, str(videos)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert prints == {read_manifest(videos).fingerprint()}


def test_a_group_stays_on_one_side_in_all_classes_together(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{c}/s{s:02d}_{i}{flip}.avi" for c in "abc" for s in range(9) for i in "12" for flip in ("", "_flip")),
    )
    manifest = read_manifest(tmp_path, group=r"s\d+")
    sides: dict[str, set[str]] = {}
    for video in manifest.videos:
        sides.setdefault(Path(video.path).name[:3], set()).add(video.split)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(side for (side,) in sides.values()) == {"val": 2, "train": 7}


def test_group_1_of_the_expression_is_the_group(tmp_path: Path) -> None:
    put(tmp_path, *(f"c/take{i}_p{i % 2}.mp4" for i in range(10)))
    manifest = read_manifest(tmp_path, group=r"take\d+_(p\d)")
    assert Counter(v.split for v in manifest.videos) == {"val": 5, "train": 5}


def test_two_groups_are_one_in_train_and_one_in_val_whatever_the_fraction(tmp_path: Path) -> None:
    put(tmp_path, "c/a1.mp4", "c/a2.mp4", "c/b1.mp4", "c/b2.mp4")
    for fraction in (0.01, 0.99):
        assert Counter(v.split for v in read_manifest(tmp_path, None, "[ab]", val_fraction=fraction).videos) == {
            "val": 2,
            "train": 2,
        }


@pytest.mark.parametrize(
    ("group", "kind", "says"),
    [
        ("s(", UsageError, "is not a regular expression"),
        ("zzz", UserError, "matches no file name"),
        ("^[ab]", UserError, "matches not c.webm and 1 other file names"),
        ("m?", UserError, "matches no file name"),  # an empty match is no group
        (".$|(x)", UserError, "matches no file name"),  # nor is a group that took no part
    ],
)
def test_a_group_that_does_not_group_is_a_clear_error(videos: Path, group: str, kind: type, says: str) -> None:
    with pytest.raises(kind) as error:
        read_manifest(videos, group=group)
    assert says in str(error.value)


def test_one_group_for_everything_is_a_clear_error(videos: Path) -> None:
    with pytest.raises(UserError, match="nothing can be held out"):
        read_manifest(put(videos, "run/a2.mp4"), csv(videos, "path,label\njump/a.mp4,x\nrun/a2.mp4,x\n"), group="a")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_outside_0_and_1_is_wrong_usage(videos: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        read_manifest(videos, val_fraction=fraction)


# csv


def test_csv_rows_keep_split_key_and_times(videos: Path) -> None:
    file = csv(
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


def test_labels_that_are_numbers_are_ordered_as_numbers(videos: Path) -> None:
    file = csv(videos, "path,label\njump/a.mp4,10\njump/b.avi,9\nrun/c.webm,2\n")
    assert read_manifest(videos, file).classes == ("2", "9", "10")


def test_parts_of_one_video_get_keys_by_their_times(videos: Path) -> None:
    file = csv(videos, "path,label,start_s,end_s\njump/a.mp4,x,0,1.5\njump/a.mp4,x,1.5,\nrun/c.webm,x,3,4\n")
    assert set(by_key(read_manifest(videos, file))) == {"jump-a-0000000-0001500", "jump-a-0001500-end", "run-c"}


def test_a_class_list_fixes_the_labels(videos: Path) -> None:
    classes = csv(videos, "walk\nrun\njump\n", "classes.txt")
    file = csv(videos, "path,label\njump/a.mp4,jump\n")
    manifest = read_manifest(videos, file, classes=classes)
    assert manifest.classes == ("walk", "run", "jump")
    assert manifest.videos[0].label == 2
    with pytest.raises(UserError, match="line 2: class 'swim' is not in the list of 3 classes"):
        read_manifest(videos, csv(videos, "path,label\njump/a.mp4,swim\n"), classes=classes)


def test_paths_may_be_absolute_inside_the_folder_only(videos: Path) -> None:
    file = csv(videos, f"path,label\n{videos}/jump/a.mp4,x\njump/../run/c.webm,x\n")
    assert {v.path for v in read_manifest(videos, file).videos} == {"jump/a.mp4", "run/c.webm"}


@pytest.mark.parametrize("path", ["../secret.mp4", "jump/../../secret.mp4", "/etc/passwd", "..", "."])
def test_a_path_that_leaves_the_folder_is_refused(videos: Path, path: str) -> None:
    put(videos.parent, "secret.mp4")
    with pytest.raises(UserError, match=r"a path that leaves .* in 1 row \(line 3\)"):
        read_manifest(videos, csv(videos, f"path,label\njump/a.mp4,x\n{path},x\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has the columns (none): it needs path,label"),
        ("file,class\na,b\n", "has the columns file,class: it needs path,label"),
        ("path;label\na;b\n", "has the columns path;label: it needs path,label"),
        ("path,label,label\na,b,c\n", "more than one column label"),
        ("path,label\n", "lists no videos"),
        ("path,label\n" + "a.mp4,\n" * 7, "no label in 7 rows (lines 2, 3, 4, 5, 6, ...)"),
        ("path,label\n ,x\n", "no path in 1 row (line 2)"),
        ("path,label,split\na,x,train\nb,x,\n", "no split in 1 row (line 3)"),
        ("path,label,split\na,x,tr/ain\n", "a split of other characters"),
        ("path,label,key\na,x,k.1\n", "a key of other characters"),
        ("path,label,key\na,x,k\nb,x,k\n", "line 3: key k is given already"),
        ("path,label\na,x\n./a,x\n", "line 3: a is listed already"),
        ("path,label,start_s,end_s\na,x,2,2\n", "start_s not before end_s in 1 row (line 2)"),
        ("path,label,start_s\na,x,soon\n", "a start_s that is no number of seconds"),
        ("path,label,end_s\na,x,inf\n", "a end_s that is no number of seconds"),
        ("path,label\na,b,c\n", "line 2: 3 values for 2 columns"),
        ('path,label\n"a,b\n', "is not a csv file"),
        ("path,label\né,b\n".encode("latin-1"), "is not UTF-8 text"),
        ("label,youtube_id\na,b\n", "it needs label,youtube_id,time_start,time_end"),
        ("path,label\ngone1.mp4,a\ngone2.mp4,a\n", "none of the 2 videos listed is in"),
    ],
)
def test_what_is_wrong_in_a_csv_is_said_on_one_line(videos: Path, text: str | bytes, says: str) -> None:
    put(videos, "a", "b")
    with pytest.raises(UserError) as error:
        read_manifest(videos, csv(videos.parent, text))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_annotations_that_are_not_there_are_a_clear_error(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no annotations"):
        read_manifest(videos, tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="holds no annotations"):
        read_manifest(videos, put(tmp_path / "empty", "x.json"))


def test_a_group_beside_given_splits_is_wrong_usage(videos: Path) -> None:
    with pytest.raises(UsageError, match="leave --group away"):
        read_manifest(videos, csv(videos, "path,label,split\njump/a.mp4,x,train\n"), group="a")


# Kinetics

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


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
def test_kinetics_trimmed_files_are_found_however_they_are_arranged(tmp_path: Path, path: str) -> None:
    file = csv(tmp_path, KINETICS + "air drumming,-aBc_123xyz,5,15,validate,0\n")
    (video,) = read_manifest(put(tmp_path / "v", path), file).videos
    assert video == Video("-aBc_123xyz_000005_000015", path, 0, "air drumming", "val")


def test_kinetics_whole_videos_are_cut_at_the_annotated_times(tmp_path: Path) -> None:
    file = csv(tmp_path, KINETICS + "a,abcdefghijk,5,15,train,0\na,abcdefghijk,20,30,train,0\n")
    manifest = read_manifest(put(tmp_path / "v", "abcdefghijk.mp4"), file)
    assert [(v.key, v.path, v.start_s, v.end_s) for v in manifest.videos] == [
        ("abcdefghijk_000005_000015", "abcdefghijk.mp4", 5.0, 15.0),
        ("abcdefghijk_000020_000030", "abcdefghijk.mp4", 20.0, 30.0),
    ]


def test_kinetics_of_several_files_takes_that_of_its_class_and_split(tmp_path: Path) -> None:
    name = "abcdefghijk_000005_000015.mp4"
    put(tmp_path / "v", *(f"{split}/{folder}/{name}" for split in ("train", "val") for folder in ("other", "a_b")))
    file = csv(tmp_path, KINETICS + "a b,abcdefghijk,5,15,val,0\n")
    assert read_manifest(tmp_path / "v", file).videos[0].path == f"val/a_b/{name}"


def test_kinetics_rows_said_twice_count_once_and_contradictions_are_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "v", "abcdefghijk.mp4")
    row = "a,abcdefghijk,5,15,train,0\n"
    with caplog.at_level(logging.WARNING):
        assert len(read_manifest(tmp_path / "v", csv(tmp_path, KINETICS + row + row)).videos) == 1
    assert "1 rows repeat another row" in caplog.text
    with pytest.raises(UserError, match=r"line 3: .* is 'b' in train, but 'a' in train in .* line 2"):
        read_manifest(tmp_path / "v", csv(tmp_path, KINETICS + row + row.replace("a,", "b,", 1)))


def test_train_and_val_lists_in_a_folder_agree_on_the_classes(tmp_path: Path) -> None:
    put(tmp_path / "v", "x1.mp4", "x2.mp4")
    lists = put(tmp_path / "lists")
    lists.mkdir()
    csv(lists, "path,label\nx1.mp4,b\n", "my_train.csv")
    csv(lists, "path,label\nx2.mp4,a\n", "my_val.csv")
    manifest = read_manifest(tmp_path / "v", lists)
    assert manifest.classes == ("a", "b")
    assert {v.path: v.split for v in manifest.videos} == {"x1.mp4": "train", "x2.mp4": "val"}
    csv(lists, "path,label,split\nx2.mp4,a,val\n", "other.csv")
    with pytest.raises(UserError, match=r"my_val.csv and other.csv in .* both give the split val"):
        read_manifest(tmp_path / "v", lists)


# UCF101, HMDB51


def test_ucf101_label_that_contradicts_the_class_list_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "v", "Archery/v_Archery_g01_c01.avi")
    csv(tmp_path, "1 Archery\n2 Biking\n", "classInd.txt")
    file = csv(tmp_path, "Archery/v_Archery_g01_c01.avi 2\n", "trainlist01.txt")
    with pytest.raises(UserError, match=r"trainlist01.txt line 1: class 2 is not Archery"):
        read_manifest(tmp_path / "v", file)


def test_a_split_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "v/x.avi", "ucf/trainlist01.txt", "hmdb/wave_test_split1.txt")
    for folder in ("ucf", "hmdb"):
        with pytest.raises(UserError, match="has no split 7"):
            read_manifest(tmp_path / "v", tmp_path / folder, split_number=7)
    with pytest.raises(UsageError, match="belongs to split 1, not 2"):
        read_manifest(tmp_path / "v", tmp_path / "ucf/trainlist01.txt", split_number=2)
    with pytest.raises(UsageError, match="only UCF101's and HMDB51's"):
        read_manifest(tmp_path / "v", csv(tmp_path, "path,label\nx.avi,a\n"), split_number=2)


# The manifest


def test_a_manifest_survives_the_way_through_a_table(videos: Path) -> None:
    file = csv(videos, "path,label,start_s,end_s\njump/a.mp4,x,0.1,1.5\ngone.mp4,y,,\n")
    manifest = read_manifest(videos, file)
    assert Manifest.from_table(manifest.table()) == manifest
    assert Manifest.from_table(manifest.table()).fingerprint() == manifest.fingerprint()


def test_the_fingerprint_changes_with_any_row_or_class(videos: Path) -> None:
    texts = [
        "jump/a.mp4,x,0.1,\n",
        "jump/b.avi,x,0.1,\n",
        "jump/a.mp4,y,0.1,\n",
        "jump/a.mp4,x,0.2,\n",
        "jump/a.mp4,x,,\n",
    ]
    prints = {read_manifest(videos, csv(videos, "path,label,start_s,end_s\n" + text)).fingerprint() for text in texts}
    assert len(prints) == len(texts)


def test_a_key_is_the_same_in_every_version() -> None:
    """Keys name the videos of datasets that exist: changing them orphans those."""
    assert safe_key("bend/s01_006") == "bend-s01_006"
    assert safe_key("Ünïcode & spaces/a.b") == "Unicode_spaces-a_b"
    assert safe_key("動画") == "6ddc42fa44"
