"""`lgd splits`, on a dataset of rendered videos: up/up-000.mp4, ... 6 classes of 3 videos, split train and val."""

import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.dataset.splits import listed_videos, split_keys
from lgd.pipeline.inspection.describe import describe
from lgd.pipeline.storage.lock import locked
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.options import SplitOptions
from lgd.preprocessing.dataset_splits import SplitsResult, splits_of_dataset


@pytest.fixture
def data(dataset_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(dataset_folder, tmp_path / "data")
    return tmp_path / "data"


def run(data: Path, **options: Any) -> SplitsResult:
    return splits_of_dataset(str(data), SplitOptions(**options))


def videos_of(data: Path) -> list[tuple[str, str, str]]:
    """Key, path and class of each listed video."""
    table = listed_videos(Storage(data))
    return list(zip(*(table.column(name).to_pylist() for name in ("key", "path", "class_name")), strict=True))


def file_hashes(data: Path) -> dict[str, str]:
    return {
        path.relative_to(data).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in data.rglob("*")
        if path.is_file() and path.name != "splits.parquet"
    }


def write(folder: Path, text: str, name: str = "folds.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_folds_of_a_csv_file_change_no_other_file_and_are_listed_with_their_classes(data: Path, tmp_path: Path):
    before, videos = file_hashes(data), videos_of(data)
    rows = [f"{key},fold{1 + number % 3}-test" for number, (key, _, _) in enumerate(videos)]
    result = run(data, csv=write(tmp_path, "\n".join(["key,split", *rows])))
    assert file_hashes(data) == before
    assert result.added == ["fold1-test", "fold2-test", "fold3-test"]
    fold = result.splits["fold1-test"]
    assert (fold.table, fold.videos, fold.listed, fold.unlabelled) == (True, 6, 6, 0)
    assert dict(fold.classes) == {
        **dict.fromkeys(result.splits["train"].classes, 0),
        **Counter(name for _, _, name in videos[::3]),
    }
    assert describe(open_dataset(data)).splits == {name: split.videos for name, split in result.splits.items()}
    assert run(data).added == []
    text = "\n".join(map(str, run(data).lines()[:1]))
    assert text.startswith(f"{data}: 18 videos in 6 classes")
    assert run(data, remove=("fold2-test",)).removed == ["fold2-test"]
    assert file_hashes(data) == before


def test_videos_are_found_by_their_paths_as_other_lists_spell_them(data: Path, tmp_path: Path):
    (_, first, _), (_, second, _), (_, third, _) = videos_of(data)[:3]
    rows = [f"{first},x", f"/somewhere/videos/{second},x", f"{third.replace('.mp4', '.avi')},x", f"{first},y"]
    run(data, csv=write(tmp_path, "\n".join(["path,split", *rows])))
    dataset = open_dataset(data)
    assert split_keys(dataset, "x") == sorted(key for key, _, _ in videos_of(data)[:3])
    assert split_keys(dataset, "y") == [videos_of(data)[0][0]]


def test_official_lists_are_added_by_the_names_of_the_files(data: Path, tmp_path: Path):
    videos = videos_of(data)
    lists = tmp_path / "lists"
    lists.mkdir()
    sides = {"train": videos[:12], "test": videos[12:]}
    for number, swapped in ((1, False), (2, True)):
        for side, part in sides.items():
            name = {"train": "test", "test": "train"}[side] if swapped else side
            text = "".join(f"{path.replace('.mp4', '.avi')}\n" for _, path, _ in part)
            write(lists, text, f"{name}list{number:02d}.txt")
    assert run(data, annotations=lists).added == ["train1", "test1", "train2", "test2"]
    assert split_keys(open_dataset(data), "train1") == split_keys(open_dataset(data), "test2")
    assert split_keys(open_dataset(data), "train1") == sorted(key for key, _, _ in videos[:12])
    other = run(data, annotations=lists, split_number=2)  # the same splits again
    assert other.added == []


def test_group_folds_and_held_out_parts_keep_groups_together(data: Path, tmp_path: Path):
    result = run(data, folds=3, group=r"(\d+)\.mp4", seed=1, fold_name="person")
    assert result.added == [f"person{fold}-{side}" for fold in (1, 2, 3) for side in ("train", "test")]
    assert [set(result.splits[f"person{fold}-test"].classes.values()) for fold in (1, 2, 3)] == [{1}] * 3
    dataset = open_dataset(data)
    assert len({key[-3:] for key in split_keys(dataset, "person2-test")}) == 1
    rows = [f"{key},{path}" for key, path, _ in videos_of(data)]
    held = run(data, hold_out="train", group_csv=write(tmp_path, "\n".join(["key,group", *rows])), fraction=0.5)
    assert held.added == ["train-fit", "train-held"]
    assert held.splits["train-fit"].videos == held.splits["train-held"].videos
    inside = run(data, folds=2, group=".+", within="train-fit", fold_name="inner")
    assert inside.splits["inner1-test"].videos + inside.splits["inner2-test"].videos == held.splits["train-fit"].videos


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,split\nnobody,x\n", "contains none of the 1 videos that .*folds.csv lists, such as nobody"),
        (
            "key,split\n{key},x\nn1,x\nn2,x\nn3,x\nn4,y\n",
            "lacks 4 videos that .* lists: n1, n2, n3, ...: .*--allow-missing",
        ),
        ("path,split\nup/none.mp4,x\n", "contains none of the 1 videos"),
        ("key,split\n{key},\n", "folds.csv line 2: no split"),
        ("key,split\n,x\n", "folds.csv line 2: no key"),
        ("key,split\n{key},a b\n", "folds.csv line 2: 'a b' cannot be the name of a split"),
        ("key,fold\n{key},x\n", r"has the columns key,fold but requires key \(or path\) and split"),
        ("key,split\n", "folds.csv lists no videos"),
        ("key,split\n{key},train\n", "the shards have a split train already: choose another name"),
        ("key,split\n{key},train1\n{key},test1\n", "1 video is in train1 and in test1: {key}: put each"),
    ],
)
def test_csv_files_that_do_not_fit_are_one_line(data: Path, tmp_path: Path, text: str, message: str):
    key = videos_of(data)[0][0]
    file = write(tmp_path, text.replace("{key}", key))
    with pytest.raises(UserError, match=message.replace("{key}", key)):
        run(data, csv=file)
    assert open_dataset(data).table_splits == {}


def test_listed_videos_that_the_dataset_lacks_are_left_out_on_request(data: Path, tmp_path: Path):
    key = videos_of(data)[0][0]
    run(data, csv=write(tmp_path, f"key,split\n{key},x\nn1,x\n"), allow_missing=True)
    assert split_keys(open_dataset(data), "x") == [key]
    with pytest.raises(UserError, match=r"contains no video of the split y of "):
        run(data, csv=write(tmp_path, f"key,split\n{key},x\nn1,y\n"), allow_missing=True)


def test_lists_of_other_videos_and_other_classes_are_one_line(data: Path, tmp_path: Path):
    path = videos_of(data)[0][1].replace(".mp4", ".avi").rpartition("/")[2]
    for text, message in (
        ("wave/b.avi\n", "contains none of the 1 videos that .* lists, such as wave/b.avi: give the lists"),
        (
            f"wave/{path}\n",
            "has other classes than .*: .* is '.*' there and 'wave' in .*trainlist01.txt line 1: give the",
        ),
    ):
        with pytest.raises(UserError, match=message):
            run(data, annotations=write(tmp_path, text, "trainlist01.txt"))
    with pytest.raises(UserError, match="gives no splits"):
        run(data, annotations=write(tmp_path, f"path,label\n{videos_of(data)[0][1]},up\n", "list.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2, "remove": ("x",)}, "give one of --folds and --remove at a time"),
        ({"folds": 2}, "--folds needs --group REGEX or --group-csv FILE"),
        ({"folds": 2, "group": "a", "group_csv": Path("x")}, "--folds needs --group REGEX or --group-csv FILE, one"),
        ({"group": "a"}, "--group does not apply to the list of the splits"),
        ({"hold_out": "train", "group": "a", "within": "val"}, "--within does not apply to --hold-out"),
        ({"csv": Path("x"), "split_number": 1}, "--split-number does not apply to --csv"),
        ({"allow_missing": True}, "--allow-missing applies to --annotations and --csv"),
        ({"folds": 1, "group": ".+"}, "--folds must be 2 or more"),
        ({"folds": 2, "group": "("}, "is not a valid regular expression"),
    ],
)
def test_options_that_do_not_belong_together_are_a_usage_error(data: Path, options: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        run(data, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2, "group": "nothing"}, "--group 'nothing' does not match any file name"),
        ({"hold_out": "test9", "group": ".+"}, "has no split 'test9'"),
        ({"folds": 40, "group": ".+"}, "18 groups cannot be divided into 40 parts"),
        ({"csv": Path("absent.csv")}, "absent.csv does not exist"),
        ({"annotations": Path("absent")}, "absent does not exist"),
        ({"folds": 2, "group_csv": Path("absent.csv")}, "--group-csv absent.csv does not exist"),
        ({"folds": 2, "group": ".+", "fold_name": "a/b"}, "'a/b1-train' cannot be the name of a split"),
    ],
)
def test_requests_that_the_dataset_cannot_meet_are_one_line(data: Path, options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        run(data, **options)


def test_the_dataset_is_locked_while_its_table_changes(data: Path):
    with locked(Storage(data), "lgd preprocess"):
        assert run(data).added == []  # a list needs no lock
        with pytest.raises(UserError, match="lgd preprocess"):
            run(data, folds=2, group=".+")
