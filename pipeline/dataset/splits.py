"""The splits of a dataset by name: those of its shards (`train-000012`) and those of splits.parquet (`split_table`).

Every command that takes the name of a split takes both kinds, and no name is of both."""

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.split_table import (
    SplitTable,
    check_new_splits,
    hash_keys,
    read_split_table,
    shown,
    sorted_keys,
    write_split_table,
)
from lgd.pipeline.dataset.tables import MANIFEST, MANIFEST_SCHEMA, REJECTED, SPLITS, read_table
from lgd.pipeline.storage.storage import Storage


def members_of(dataset: Dataset, split: str) -> pa.StringArray:
    """Return the sorted keys of a split of splits.parquet, those of rejected videos too.

    Raises UserError if the split was changed or removed since the dataset was opened."""
    keys = read_split_table(dataset.storage).members.get(split)
    if keys is None or hash_keys(keys) != dataset.split_hash(split):
        raise UserError(
            f"{dataset.storage.display(SPLITS)}: another command changed the split {split} meanwhile: rerun this one"
        )
    return keys


def split_keys(dataset: Dataset, split: str) -> list[str]:
    """Return the sorted keys of the videos of a split that are in the shards.

    With selected classes (`Dataset.selection`) only those of these classes. Raises UserError if the dataset does not
    have the split."""
    check_has_split(dataset, split)
    return _keys_of(dataset, dataset.videos(["key", "split", "class"]), split)


def rejected_keys(dataset: Dataset, split: str) -> list[str]:
    """Return the sorted keys of the videos of a split that were listed but are not in the shards, such as missing ones.

    With selected classes only those of these classes. Raises UserError if the dataset does not have the split."""
    check_has_split(dataset, split)
    return _keys_of(dataset, dataset.rejected(), split)


def rows_in_split(dataset: Dataset, table: pa.Table, split: str) -> pa.Table:
    """Return the rows of a table with the columns key and split (that of the shards) whose videos are in a split."""
    if split in dataset.table_splits:
        return table.filter(pc.is_in(table.column("key"), members_of(dataset, split)))
    return table.filter(pc.equal(table.column("split"), split))


def _keys_of(dataset: Dataset, table: pa.Table, split: str) -> list[str]:
    """Return the sorted keys of the rows of a split, of the selected classes. table: with the columns key, split and
    class."""
    rows = rows_in_split(dataset, table, split)
    if dataset.selection:
        rows = rows.filter(pc.is_in(rows.column("class"), pa.array(dataset.classes, pa.string())))
    return sorted(rows.column("key").to_pylist())


def common_keys(dataset: Dataset, first: str, second: str) -> list[str]:
    """Return the sorted keys that are in both splits. Raises UserError if the dataset lacks one of them."""
    return sorted(set(split_keys(dataset, first)) & set(split_keys(dataset, second)))


def check_separate(dataset: Dataset, trained: str, scored: str) -> None:
    """Raise UserError if videos of the split that a network is trained on are scored, or if the splits are the same.

    For commands that report the accuracy of a trained network, such as `lgd reproduce`."""
    if trained == scored:
        raise UserError(f"the split {trained} is both trained on and scored: score another one, such as a test split")
    if both := common_keys(dataset, trained, scored):
        count = "1 video is" if len(both) == 1 else f"{len(both)} videos are"
        raise UserError(
            f"{dataset.storage.display()}: {count} both in {trained}, which is trained on, and in {scored}, which is "
            f"scored: {shown(both)}: use splits without common videos"
        )


def check_has_split(dataset: Dataset, split: str) -> None:
    """Raise UserError if the dataset does not have the split, or none of its videos."""
    if not dataset.splits.get(split) or not dataset.splits[split].videos:
        raise missing_split(dataset, split)


def missing_split(dataset: Dataset, split: str, *, stream: str | None = None) -> UserError:
    """Return the error for a split without videos. stream: of the index, for the message."""
    where = dataset.storage.display()
    if split in dataset.table_splits and not dataset.table_splits[split].videos:
        listed = dataset.table_splits[split].listed
        return UserError(f"{where}: all {listed} videos of the split {split} were rejected: see {REJECTED}")
    if dataset.selection and (dataset.table_splits.get(split) or dataset.own_splits.get(split)):
        return UserError(
            f"{where}: no video of the split {split} is of the {len(dataset.classes)} selected classes: choose another "
            "split"
        )
    existing = ", ".join(name for name, counts in dataset.splits.items() if counts.videos) or "none"
    return UserError(
        f"{where} has no split {split!r}{f' in {stream}' if stream else ''}: choose from {existing}; `lgd splits "
        f"{where}` lists and adds splits"
    )


def listed_videos(storage: Storage) -> pa.Table:
    """Return key, path, label, class_name, split, start_s, end_s and missing of every listed video, those of rejected
    videos too. Raises UserError if the manifest is missing or damaged."""
    return read_table(storage, MANIFEST, schema=MANIFEST_SCHEMA)


def change_splits(
    storage: Storage,
    dataset: Dataset,
    new: Mapping[str, Iterable[str]],
    *,
    known: pa.StringArray,
    removed: Iterable[str] = (),
) -> SplitTable:
    """Add splits to a dataset, and remove others; return its table. No shard is read or changed.

    storage: the dataset's folder, whose lock the command holds. new: the keys of each split. known: keys of all listed
    videos. An existing split with the same keys stays as it is; the file is written only if something changes.
    Raises UserError as `check_new_splits` does, and for a split to remove that the table does not have."""
    where = dataset.storage.display()
    table = read_split_table(storage)
    for name in removed:
        if name not in table.members:
            kind = "it belongs to the shards" if name in dataset.own_splits else f"{SPLITS} does not have it"
            raise UserError(f"{where}: the split {name} cannot be removed: {kind}")
    reduced = table.replaced(dict.fromkeys(removed))
    added = {name: sorted_keys(keys) for name, keys in new.items()}
    check_new_splits(reduced, added, own=own_names(storage, dataset), known=known, where=where)
    missing = {name: keys.to_pylist() for name, keys in added.items() if name not in reduced.members}
    changed = reduced.replaced(missing)
    if changed.hash != table.hash:
        write_split_table(storage, changed)
    return changed


def own_names(storage: Storage, dataset: Dataset) -> set[str]:
    """Return the names of the shards' own splits, of rejected videos too."""
    return {*dataset.own_splits, *pc.unique(listed_videos(storage).column("split")).to_pylist()}
