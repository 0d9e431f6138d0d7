import shutil
from pathlib import Path

import numpy as np
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.splits import (
    change_splits,
    check_separate,
    common_keys,
    listed_videos,
    rejected_keys,
    split_keys,
)
from lgd.pipeline.dataset.tables import SPLITS
from lgd.pipeline.storage.storage import Storage


@pytest.fixture
def copy(unlabelled_dataset: Dataset, tmp_path: Path) -> Dataset:
    """Splits of the shards: train 3 (1 without a label), val 1, test 2 (without a label)."""
    shutil.copytree(unlabelled_dataset.storage.path(), tmp_path / "data")
    return open_dataset(tmp_path / "data")


def add(dataset: Dataset, removed: tuple[str, ...] = (), **splits: list[str]) -> Dataset:
    known = listed_videos(dataset.storage).column("key").combine_chunks()
    change_splits(dataset.storage, dataset, splits, known=known, removed=removed)
    return open_dataset(dataset.storage)


def test_a_split_of_the_table_has_its_rows_in_the_order_of_the_index_and_its_counts(copy: Dataset):
    index = Index(copy, "rgb")
    keys = index.keys(range(len(index)))
    chosen = [keys[number] for number in (4, 0, 3)]
    dataset = add(copy, mine=chosen)
    rows = Index(dataset, "rgb").rows("mine")
    assert rows.tolist() == [0, 3, 4]
    assert rows.dtype == np.int64
    assert Index(dataset, "flow").keys(Index(dataset, "flow").rows("mine")) == [keys[row] for row in (0, 3, 4)]
    assert split_keys(dataset, "mine") == sorted(chosen)
    unlabelled = sum(int(index.labels[row]) < 0 for row in (0, 3, 4))
    assert 0 < unlabelled < 3
    assert (dataset.labeled("mine"), dataset.unlabelled("mine")) == (3 - unlabelled, unlabelled)
    assert dataset.split_hash("mine") is not None
    assert dataset.split_hash("train") is None
    assert list(dataset.splits) == [*copy.splits, "mine"]
    assert dataset.fingerprint == copy.fingerprint


def test_the_splits_of_the_shards_stay_as_they_are(copy: Dataset):
    before = {name: Index(copy, "rgb").rows(name).tolist() for name in copy.splits}
    dataset = add(copy, mine=split_keys(copy, "val"))
    assert {name: Index(dataset, "rgb").rows(name).tolist() for name in copy.splits} == before
    assert dataset.summary == copy.summary


def test_splits_are_added_and_removed_in_place_and_nothing_is_written_without_a_change(copy: Dataset):
    train, val = split_keys(copy, "train"), split_keys(copy, "val")
    dataset = add(copy, a=train, b=val)
    written = Path(copy.storage.path(SPLITS)).stat().st_mtime_ns
    dataset = add(dataset, a=train)
    assert Path(copy.storage.path(SPLITS)).stat().st_mtime_ns == written
    assert add(dataset, removed=("a",)).table_splits.keys() == {"b"}
    with pytest.raises(UserError, match=r"the split a cannot be removed: splits.parquet does not have it"):
        add(dataset, removed=("a",))
    with pytest.raises(UserError, match="the split train cannot be removed: it belongs to the shards"):
        add(dataset, removed=("train",))


def test_a_split_that_another_command_changed_meanwhile_is_an_error(copy: Dataset):
    dataset = add(copy, mine=split_keys(copy, "train"))
    index = Index(dataset, "rgb")
    add(dataset, removed=("mine",))
    add(copy, mine=split_keys(copy, "val"))
    with pytest.raises(UserError, match="another command changed the split mine meanwhile: rerun this one"):
        index.rows("mine")


def test_videos_that_are_trained_on_and_scored_are_an_error(copy: Dataset):
    train, val, test = (split_keys(copy, name) for name in ("train", "val", "test"))
    dataset = add(copy, first=train + val, second=val + test)
    check_separate(dataset, "train", "val")
    check_separate(dataset, "train", "second")
    assert common_keys(dataset, "first", "second") == val
    with pytest.raises(UserError, match="the split first is both trained on and scored"):
        check_separate(dataset, "first", "first")
    with pytest.raises(UserError, match=rf"1 video is both in first, .* and in second, .*: {val[0]}: use splits"):
        check_separate(dataset, "first", "second")


def test_a_missing_split_is_an_error_that_lists_those_of_the_shards_and_of_the_table(copy: Dataset):
    dataset = add(copy, mine=split_keys(copy, "val"))
    for call in (split_keys, rejected_keys, lambda data, name: Index(data, "rgb").rows(name)):
        with pytest.raises(UserError, match=r"no split 'test9'.*: choose from test, train, val, mine; `lgd splits "):
            call(dataset, "test9")


def test_a_dataset_in_an_object_store_has_the_same_rows(remote: Dataset):
    train = split_keys(remote, "train")
    dataset = add(remote, mine=train[::2])
    try:
        rows = Index(dataset, "rgb").rows("mine")
        assert Index(dataset, "rgb").keys(rows) == train[::2]
    finally:
        Storage(remote.storage.address).delete(SPLITS)
