import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.class_selection import NOT_SELECTED, select_classes, selected_labels
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.splits import change_splits, listed_videos, split_keys


def test_the_labels_are_the_numbers_in_the_selected_list_and_other_videos_are_left_out(dataset: Dataset):
    first, last = dataset.classes[0], dataset.classes[-1]
    selected = select_classes(dataset, [last, first])
    index, whole = Index(selected, "rgb"), Index(dataset, "rgb")
    assert index.classes == (last, first)
    assert dict(zip(whole.labels.tolist(), index.labels.tolist(), strict=True)) == {
        0: 1,
        **dict.fromkeys(range(1, len(dataset.classes) - 1), NOT_SELECTED),
        len(dataset.classes) - 1: 0,
    }
    for split in dataset.splits:
        expected = [row for row in whole.rows(split).tolist() if whole.labels[row] in (0, len(dataset.classes) - 1)]
        assert index.rows(split).tolist() == index.labeled_rows(split).tolist() == expected
        assert selected.labeled(split) == len(expected) < dataset.labeled(split)
        assert split_keys(selected, split) == sorted(index.keys(expected))
    assert pickle.loads(pickle.dumps(selected)).stored_classes == dataset.classes


def test_all_classes_in_the_same_order_are_no_selection_and_a_second_one_starts_from_all(dataset: Dataset):
    assert select_classes(dataset, dataset.classes) == dataset
    few = select_classes(dataset, dataset.classes[:2])
    assert select_classes(few, dataset.classes) == dataset
    assert select_classes(few, dataset.classes[2:]).classes == dataset.classes[2:]
    reordered = select_classes(dataset, dataset.classes[::-1])
    assert reordered.labeled("train") == dataset.labeled("train")


def test_splits_of_the_table_are_counted_and_videos_without_a_label_are_left_out(
    unlabelled_dataset: Dataset, tmp_path: Path
):
    shutil.copytree(unlabelled_dataset.storage.path(), tmp_path / "data")
    copy = open_dataset(tmp_path / "data")
    known = listed_videos(copy.storage).column("key").combine_chunks()
    change_splits(copy.storage, copy, {"mine": known.to_pylist()}, known=known)
    selected = select_classes(open_dataset(tmp_path / "data"), ["down"])
    assert selected.splits["mine"].videos == len(Index(selected, "rgb").rows("mine")) == 1
    with pytest.raises(UserError, match="no video of the split test is of the 1 selected classes"):
        Index(selected, "rgb").rows("test")


def test_an_unknown_class_is_an_error_and_letters_may_be_written_in_two_forms(dataset: Dataset):
    with pytest.raises(UserError, match=r"does not have 2 of the 3 selected classes: fly, swim"):
        select_classes(dataset, [dataset.classes[0], "fly", "swim"])
    accented = replace(dataset, classes=("cafe\u0301", *dataset.classes[1:]))
    assert select_classes(accented, ["caf\u00e9"]).classes == ("cafe\u0301",)
    stored = np.array([1, 0, -1], np.int32)
    assert selected_labels(dataset, stored) is stored
    chosen = select_classes(dataset, dataset.classes[:1])
    assert selected_labels(chosen, stored).tolist() == [NOT_SELECTED, 0, NOT_SELECTED]
