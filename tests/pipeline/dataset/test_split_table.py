import re
from pathlib import Path

import pyarrow as pa
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.split_table import (
    SplitTable,
    check_new_splits,
    count_members,
    hash_keys,
    other_side,
    read_split_table,
    sorted_keys,
    write_split_table,
)
from lgd.pipeline.dataset.tables import SPLITS, SPLITS_SCHEMA, write_table
from lgd.pipeline.storage.checked_json import DamagedFile
from lgd.pipeline.storage.storage import Storage


def table(**splits: str) -> SplitTable:
    return SplitTable({name.replace("_", "-"): sorted_keys(keys) for name, keys in splits.items()})


def test_a_table_is_read_as_it_was_written_and_without_splits_its_file_is_deleted(tmp_path: Path):
    storage, written = Storage(tmp_path), table(train1="cab", test1="d", x="dca")
    write_split_table(storage, written)
    read = read_split_table(storage)
    assert {name: keys.to_pylist() for name, keys in read.members.items()} == {
        "train1": ["a", "b", "c"],
        "test1": ["d"],
        "x": ["a", "c", "d"],
    }
    assert read.hash == written.hash
    write_split_table(storage, SplitTable({}))
    assert not (tmp_path / SPLITS).exists()
    assert read_split_table(storage).members == {}


def test_the_hash_of_a_split_depends_on_its_keys_alone_and_that_of_the_table_on_all_splits():
    before = table(train1="abc", test1="d")
    after = before.replaced({"x": ["a"], "test1": None})
    assert list(after.members) == ["train1", "x"]
    assert hash_keys(after.members["train1"]) == hash_keys(sorted_keys("cba")) != hash_keys(sorted_keys("ab"))
    assert after.hash != before.hash
    assert SplitTable(dict(reversed(list(before.members.items())))).hash == before.hash


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a", "x"), ("a", "x")], "a key appears twice in the split x"),
        ([("a", "x/y")], "'x/y' is not the name of a split"),
        ([("a", "all")], "all is also a split of the shards"),
    ],
)
def test_a_table_that_no_command_wrote_is_an_error_that_says_what_to_do(
    tmp_path: Path, rows: list[tuple[str, str]], reason: str
):
    storage = Storage(tmp_path)
    write_table(storage, SPLITS, pa.table([pa.array(column) for column in zip(*rows, strict=True)], SPLITS_SCHEMA))
    with pytest.raises(DamagedFile, match=rf"{re.escape(reason)}.*add the splits again with `lgd splits`"):
        count_members(storage, {"all": 1}, videos=None)
    (tmp_path / SPLITS).write_bytes(b"nonsense")
    with pytest.raises(DamagedFile, match="delete it and add the splits again"):
        read_split_table(storage)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"all": "a"}, "the shards have a split all already: choose another name"),
        ({"x y": "a"}, "'x y' cannot be the name of a split"),
        ({"": "a"}, "'' cannot be the name of a split"),
        ({"x": ""}, "the split x has no videos"),
        ({"old": "a"}, "data has a split old with other videos: .* `lgd splits data --remove old`"),
        ({"x": "abmnopq"}, "data lacks 5 of the 7 videos of the split x: m, n, o, .*--allow-missing"),
        ({"train1": "abc", "test1": "cb"}, "2 videos are in train1 and in test1: b, c: put each into one of them"),
        ({"fold2-train": "ab", "fold2-test": "bc"}, "1 video is in fold2-train and in fold2-test: b"),
        ({"old-fit": "ab", "old-held": "bc"}, "1 video is in old-fit and in old-held: b"),
    ],
)
def test_splits_that_do_not_fit_the_dataset_are_one_line_each(new: dict[str, str], message: str):
    splits = {name: sorted_keys(keys) for name, keys in new.items()}
    with pytest.raises(UserError, match=message):
        check_new_splits(table(old="bc"), splits, own=["all"], known=sorted_keys("abcd"), where="data")


def test_the_same_split_again_and_overlaps_that_mean_nothing_are_allowed():
    splits = {"old": sorted_keys("bc"), "train1": sorted_keys("ab"), "test2": sorted_keys("ab")}
    check_new_splits(table(old="bc"), splits, own=["all"], known=sorted_keys("abcd"), where="data")
    assert [other_side(name) for name in ("train2", "train", "a-train-3", "strain1", "train1-fit", "test1")] == [
        "test2",
        "test",
        "a-test-3",
        None,
        "train1-held",
        None,
    ]
