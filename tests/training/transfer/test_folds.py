"""Folds, and what is refused before anything is trained."""

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.transfer.folds import Fold, check_folds, named_folds, official_folds


def test_names_stand_for_pairs_of_splits(folded: Dataset):
    assert named_folds(folded, ["f1", "2", "f3-train:f3-test"]) == [
        Fold("f1", "f1-train", "f1-test"),
        Fold("2", "train2", "test2"),
        Fold("f3-train-f3-test", "f3-train", "f3-test"),
    ]
    assert official_folds([1, 3]) == [Fold("1", "train1", "test1"), Fold("3", "train3", "test3")]
    assert (official_folds([1])[0].fit, official_folds([1])[0].held) == ("train1-fit", "train1-held")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["f1"], "needs two or more folds: --folds NAME NAME"),
        (["f1", "f2", "f1"], "^--folds has f1 twice: give each fold once$"),
        (["f1-train:f1-test", "f2", "f1"], "^--folds has f1 twice"),
    ],
)
def test_wrong_lists_of_folds_are_wrong_usage(folded: Dataset, names: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        named_folds(folded, names)


def test_a_split_is_given_once():
    with pytest.raises(UsageError, match=r"^--splits 1 1: give each split once$"):
        official_folds([1, 1])
    with pytest.raises(UsageError, match="--splits needs at least one number"):
        official_folds([])


def test_a_fold_that_the_dataset_lacks_is_refused_with_the_splits_that_it_needs(folded: Dataset):
    with pytest.raises(UserError, match="has no fold 'g', that is the splits g-train and g-test: `lgd splits "):
        named_folds(folded, ["f1", "g"])


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (Fold("4", "train4", "test4"), "has no split 'train4': choose from .*test1"),
        (Fold("x", "f1-train", "test4"), "has no split 'test4': choose from "),
        (Fold("x", "f1-train", "f1-train"), "^the split f1-train is both trained on and scored"),
        (
            Fold("x", "train1", "test2"),
            "6 videos are both in train1, which is trained on, and in test2, which is ",
        ),
        (Fold("overlap", "overlap-train", "test2"), "5 videos are both in overlap-train, "),
    ],
)
def test_folds_are_checked_before_the_first_one_is_trained(folded: Dataset, fold: Fold, message: str):
    with pytest.raises(UserError, match=message):
        check_folds(folded, [Fold("1", "train1", "test1"), fold], fit_fusion=False)


def test_a_fit_of_the_fusion_needs_a_held_out_part_of_the_training_split(folded: Dataset):
    check_folds(folded, official_folds([1, 2, 3]), fit_fusion=True)
    folds = named_folds(folded, ["f1", "f2"])
    check_folds(folded, folds, fit_fusion=False)
    message = (
        "--fit-fusion fits .* of f1-train: make f1-train-fit and f1-train-held with `lgd splits .* --hold-out f1-tr"
    )
    with pytest.raises(UserError, match=message):
        check_folds(folded, folds, fit_fusion=True)


def test_folds_may_have_test_videos_in_common(folded: Dataset):
    """As the official splits of UCF101 do."""
    check_folds(
        folded, [Fold("a", "overlap-train", "overlap-test"), Fold("b", "f1-train", "f1-test")], fit_fusion=False
    )
