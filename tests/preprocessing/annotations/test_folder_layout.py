import logging
from collections.abc import Sequence

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.folder_layout import find_layout


def paths(*folders: str) -> list[str]:
    """Return two videos in each folder."""
    return [f"{folder}/{name}.mp4" for folder in folders for name in ("1", "2")]


def inside(folder: str, *classes: str) -> list[str]:
    return paths(*(f"{folder}/{name}" for name in classes or ("bend", "jump")))


def places(files: Sequence[str], unlabelled: bool = False) -> set[tuple[str | None, str | None]]:
    """Return the splits and classes of the videos."""
    layout = find_layout("videos", files, unlabelled)
    return {layout.place(path) for path in files}


CLASSES = [(None, "bend"), (None, "jump")]


@pytest.mark.parametrize(
    "folders",
    [
        {"train": "train", "val": "val", "test": "test"},
        {"training": "train", "validation": "val", "testing": "test"},
        {"Train": "train", "Test": "test"},
        {"TRAIN": "train", "VALID": "val"},
        {"videos_train": "train", "videos_val": "val"},
        {"train_256": "train", "val_256": "val"},
        {"train256": "train", "val320": "val"},
        {"val": "val", "test": "test"},
        {"train": "train", "eval": "val"},
        {"train": "train", "dev": "val", "test": "test"},
        {"TrainSet": "train", "TestSet": "test"},
        {"kinetics400_train": "train", "kinetics400_val": "val"},
        {"my own data (train)": "train", "my own data (validation)": "val"},
        {"train": "train"},
        {"test": "test"},
    ],
)
def test_folders_named_like_splits_are_splits(folders: dict[str, str]) -> None:
    files = [path for folder in folders for path in inside(folder)]
    assert places(files) == {(split, name) for split in folders.values() for name in ("bend", "jump")}


@pytest.mark.parametrize(
    "classes",
    [
        ["training dog", "bend"],
        ["train_a_dog", "testing", "validation", "bend", "jump"],
        ["train", "bend", "jump"],
        ["test", "train", "bend", "jump", "walk"],
        ["training dog", "testing", "bend", "jump", "run"],
        ["train", "car", "bus"],
        ["trainer", "tester"],
        ["fold", "split"],
        ["1", "2"],
        ["train station", "train ride"],
        ["valid", "invalid", "bend"],
    ],
)
def test_classes_named_like_splits_stay_classes(classes: list[str]) -> None:
    assert places(paths(*classes)) == {(None, name) for name in classes}


def test_classes_named_like_splits_stay_classes_if_all_classes_have_folders() -> None:
    classes = ["train", "test", "bend", "jump", "run"]
    files = [path for name in classes for path in inside(name, "person1", "person2")]
    assert places(files) == {(None, name) for name in classes}
    files = [*inside("train", "steam", "electric"), *paths("bend", "jump")]
    assert places(files) == {(None, "train"), *CLASSES}


def test_a_class_with_the_name_of_a_split_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        places(paths("Training", "test", "bend", "jump", "walk"))
    assert [record.getMessage() for record in caplog.records] == [
        "videos: Training is the name of a class, because the other folders are not splits",
        "videos: test is the name of a class, because the other folders are not splits; if its videos have no labels, "
        "add --unlabelled",
    ]


def test_splits_inside_of_classes_are_splits() -> None:
    files = [*inside("bend", "train", "Test"), *inside("jump", "train")]
    assert places(files) == {("train", "bend"), ("test", "bend"), ("train", "jump")}
    assert places([*inside("bend", "p1", "train"), *inside("jump", "p1")]) == set(CLASSES)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [*inside("train"), *inside("val"), *inside("extra")],
            "videos: train and val look like splits, but extra does",
        ),
        ([*inside("train"), *inside("extra")], "train looks like a split, but extra does not: move the class folders"),
        ([*inside("train"), *inside("val"), *paths("a", "b", "c", "d", "e")], "but a (and 4 more) does not"),
        ([*paths("bend", "jump", "run"), *inside("test")], "test looks like a split, but bend (and 2 more) does not"),
        ([*paths("train"), *paths("val"), *paths("extra")], "train and val look like splits, but extra does not"),
        ([*inside("train1"), *inside("train2")], "train1 and train2 both look like the split train: keep one folder"),
        ([*inside("val"), *inside("eval"), *inside("train")], "val and eval both look like the split val"),
        ([*inside("split01"), *inside("split02")], "split01 (and 1 more) looks like a part of a dataset"),
        ([*paths("part1"), *paths("part2")], "part1 (and 1 more) looks like a part of a dataset"),
        ([*inside("trainval"), *inside("test")], "trainval looks like a part of a dataset"),
        (
            paths("train", "test"),
            "train looks like the split train, but train/1.mp4 (and 1 more) is not in a class fol",
        ),
        (
            [*inside("train"), *paths("val")],
            "val looks like the split val, but val/1.mp4 (and 1 more) is not in a clas",
        ),
        ([*inside("train"), *paths("train", "test")], "train looks like the split train, but train/1.mp4"),
        (
            inside("data"),
            "videos contains only the folder data, which contains 2 folders with videos: give videos/data",
        ),
        (
            inside("a/b"),
            "videos contains only the folder a/b, which contains 2 folders with videos: give videos/a/b if",
        ),
        (inside("videos", "train/bend", "val/jump"), "videos contains only the folder videos"),
        (
            [*inside("train/rgb"), *inside("val/rgb")],
            "train/rgb contains 2 folders, but every class folder must be dir",
        ),
        (
            [*inside("bend", "train", "test"), *paths("jump")],
            "bend/test and bend/train look like splits, but other fol",
        ),
    ],
)
def test_folders_that_look_like_splits_and_are_not_understood_are_refused(files: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        find_layout("videos", files)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flat_test_folder_beside_splits_has_no_labels(caplog: pytest.LogCaptureFixture) -> None:
    files = [*inside("train"), *inside("val"), *paths("test")]
    with caplog.at_level(logging.WARNING):
        assert {place for place in places(files) if place[1] is None} == {("test", None)}
    assert "videos: test has no class folders: its 2 videos have no label" in caplog.text


def test_with_unlabelled_every_flat_split_and_a_flat_test_folder_beside_classes_have_no_labels() -> None:
    assert places([*inside("train"), *paths("val")], unlabelled=True) == {
        ("train", "bend"),
        ("train", "jump"),
        ("val", None),
    }
    assert places(paths("bend", "jump", "Test"), unlabelled=True) == {*CLASSES, ("test", None)}
    assert places(paths("train", "bend", "jump"), unlabelled=True) == {(None, "train"), *CLASSES}


def test_a_single_class_is_read() -> None:
    assert places(paths("bend")) == {(None, "bend")}
    assert places(paths("bend/person1")) == {(None, "bend")}
    assert places(paths("bend", "bend/person1", "bend/person2")) == {(None, "bend")}
    assert places(inside("train", "bend")) == {("train", "bend")}
