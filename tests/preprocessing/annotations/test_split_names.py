import pytest

from lgd.preprocessing.annotations.split_names import names_a_part, parse_split_name, split_in_name, standard_split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", "training", "Training")),
        *((name, "val") for name in ("val", "Val", "valid", "validate", "VALIDATION")),
        *((name, "test") for name in ("test", "TEST", "testing")),
        *((name, name) for name in ("dev", "eval", "fold1", "Train2", "trainval", "holdout", "")),
    ],
)
def test_usual_names_of_splits_have_one_standard_name_and_others_stay(name: str, split: str) -> None:
    assert standard_split(name) == split


@pytest.mark.parametrize(
    ("name", "split", "plain"),
    [
        *((name, "train", True) for name in ("train", "Training", "videos_train", "train_256", "train256", "TrainSet")),
        *((name, "train", True) for name in ("trainset", "Kinetics400_train", "k400-train-videos", "train 2")),
        *((name, "val", True) for name in ("val", "valid_256x256", "Validation videos", "dev", "eval", "val.resized")),
        *((name, "test", True) for name in ("test", "Testing", "testset", "unlabeled_test", "testVideos")),
        *(
            (name, "train", False)
            for name in ("training dog", "train_a_dog", "my_train", "поезд train", "train_station")
        ),
    ],
)
def test_one_word_of_a_folder_name_says_the_split(name: str, split: str, plain: bool) -> None:
    parsed = parse_split_name(name)
    assert parsed is not None
    assert (parsed.split, parsed.plain) == (split, plain)


@pytest.mark.parametrize("name", ["", "bend", "trainer", "retrain", "strain", "trains", "invalid", "contest", "value"])
def test_a_word_that_contains_the_name_of_a_split_does_not_count(name: str) -> None:
    assert parse_split_name(name) is None


@pytest.mark.parametrize("name", ["train_val", "train test", "trainval"])
def test_a_name_with_two_splits_says_neither(name: str) -> None:
    assert parse_split_name(name) is None
    assert names_a_part(name)


def test_names_that_differ_only_in_the_split_have_the_same_rest() -> None:
    train, test, other = (parse_split_name(name) for name in ("My Train 1", "my-testing-1", "my_val_2"))
    assert train is not None
    assert test is not None
    assert other is not None
    assert train.rest == test.rest == "my * 1"
    assert other.rest == "my * 2"


def test_numbered_parts_are_recognized_and_actions_named_alike_are_not() -> None:
    assert all(map(names_a_part, ["split01", "fold_2", "part-3", "Subset 4", "trainval", "videos_part_1", "set2"]))
    assert not any(map(names_a_part, ["fold", "split", "set", "setting fire 2", "bend", "fold 2 shirts", "12", ""]))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("trainingSet", "train"),
        ("kinetics400_val_list_videos", "val"),
        ("test", "test"),
        ("train_train", "train"),
        ("train_and_test", None),
        ("all", None),
        ("dev", None),
    ],
)
def test_the_name_of_a_file_says_its_split(name: str, split: str | None) -> None:
    assert split_in_name(name) == split
