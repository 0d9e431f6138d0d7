"""The splits of a dataset that are rows of a table: `splits.parquet`, one row (key, split) per membership.

A video may be in several of these splits or in none; its shard does not change. The names are those that users give
(`fold1-train`) or those of official lists (`train1`, `test1`, ...). The hash of a split depends on its keys alone: runs
and scores contain it, so that other splits may be added to the table or removed from it."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.tables import SPLITS, SPLITS_SCHEMA, read_table, write_table
from lgd.pipeline.storage.checked_json import DamagedFile
from lgd.pipeline.storage.storage import Storage

SPLIT_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
SHOWN_KEYS = 3  # in a message


@dataclass(frozen=True)
class SplitCounts:
    """Number of videos of a split that are in the shards, and of those without a label.

    hash: `hash_keys` of its keys, for a split of splits.parquet. listed: number of its keys there, those of rejected
    videos too."""

    videos: int = 0
    unlabelled: int = 0
    hash: str | None = None
    listed: int | None = None


@dataclass(frozen=True)
class SplitTable:
    """The content of splits.parquet. members: the sorted keys of each split, by its name, in the order of the file."""

    members: Mapping[str, pa.StringArray]

    @property
    def hash(self) -> str:
        """SHA-256 of the names and hashes of all splits, the first 16 hexadecimal digits."""
        lines = [f"{name} {hash_keys(keys)}" for name, keys in sorted(self.members.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def table(self) -> pa.Table:
        """Return the rows of splits.parquet."""
        keys = pa.chunked_array(list(self.members.values()), pa.string())
        names = [pa.repeat(pa.scalar(name, pa.string()), len(each)) for name, each in self.members.items()]
        return pa.table([keys, pa.chunked_array(names, pa.string())], SPLITS_SCHEMA)

    def replaced(self, changes: Mapping[str, Iterable[str] | None]) -> "SplitTable":
        """Return the table with these splits added or replaced; None removes a split."""
        members = {name: keys for name, keys in self.members.items() if changes.get(name, keys) is not None}
        members |= {name: sorted_keys(keys) for name, keys in changes.items() if keys is not None}
        return SplitTable(members)


def sorted_keys(keys: Iterable[str]) -> pa.StringArray:
    """Return the keys, each once, sorted."""
    return pa.array(sorted(set(keys)), pa.string())


def hash_keys(keys: pa.StringArray) -> str:
    """Return the hash of a split with these sorted keys: of their SHA-256 the first 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(keys.to_pylist()).encode()).hexdigest()[:16]


def read_split_table(storage: Storage) -> SplitTable:
    """Read splits.parquet; an empty table if the dataset has none. Raises DamagedFile if it is damaged."""
    if not storage.exists(SPLITS):
        return SplitTable({})
    table = read_table(storage, SPLITS, schema=SPLITS_SCHEMA).select(SPLITS_SCHEMA.names)
    names, column = table.column("key"), table.column("split")
    members = {}
    for split in pc.unique(column).to_pylist():
        if not SPLIT_NAME.fullmatch(split):
            raise damaged_table(storage, f"{split[:60]!r} is not the name of a split")
        keys = names.filter(pc.equal(column, split)).combine_chunks()
        keys = keys.take(pc.sort_indices(keys))
        if pc.count_distinct(keys).as_py() != len(keys):
            raise damaged_table(storage, f"a key appears twice in the split {split}")
        members[split] = keys
    return SplitTable(members)


def write_split_table(storage: Storage, table: SplitTable) -> None:
    """Write splits.parquet, in place of an existing one; without splits, delete it. storage: a folder whose lock the
    command holds."""
    if table.members:
        write_table(storage, SPLITS, table.table())
    else:
        storage.delete(SPLITS, missing_ok=True)


def count_members(
    storage: Storage, own: Mapping[str, object], *, videos: Callable[[list[str]], pa.Table] | None
) -> dict[str, SplitCounts]:
    """Return the counts of the splits of splits.parquet; none if the dataset has no such table.

    own: the shards' own splits by name. videos: reads columns of videos.parquet; None if no stream is complete.
    Raises DamagedFile if the table is damaged or has a name of the shards' own splits."""
    table = read_split_table(storage)
    if both := sorted(own.keys() & table.members.keys()):
        raise damaged_table(storage, f"{both[0]} is also a split of the shards")
    if not table.members:
        return {}
    found, labels = pa.chunked_array([], pa.string()), pa.chunked_array([], pa.int32())
    if videos is not None:
        found, labels = videos(["key", "label"]).columns
    counts = {}
    for name, keys in table.members.items():
        inside = pc.is_in(found, keys)
        unlabelled = pc.and_(inside, labels.is_null())
        members, without_label = (pc.sum(each).as_py() or 0 for each in (inside, unlabelled))
        counts[name] = SplitCounts(members, without_label, hash_keys(keys), len(keys))
    return counts


def damaged_table(storage: Storage, reason: str) -> DamagedFile:
    """Return the error for a table that no command wrote."""
    return DamagedFile(
        f"{storage.display(SPLITS)} is damaged ({reason}): delete it and add the splits again with `lgd splits`"
    )


def check_new_splits(
    table: SplitTable, new: Mapping[str, pa.StringArray], *, own: Iterable[str], known: pa.StringArray, where: str
) -> None:
    """Check splits before they are added to a table.

    own: names of the shards' own splits. known: keys of all listed videos of the dataset, those of rejected videos too.
    where: the dataset, for messages.
    Raises UserError for an invalid name, the name of an own split, an empty split, an existing split with other keys,
    keys that the dataset lacks, and a video in `trainN` and `testN`."""
    for name, keys in new.items():
        check_split_name(name)
        if name in set(own):
            raise UserError(f"{where}: the shards have a split {name} already: choose another name")
        if not len(keys):
            raise UserError(f"{where}: the split {name} has no videos: leave it out")
        if name in table.members and hash_keys(table.members[name]) != hash_keys(keys):
            raise UserError(
                f"{where} has a split {name} with other videos: choose another name, or remove it first with "
                f"`lgd splits {where} --remove {name}` (runs trained on it can then not be resumed)"
            )
        missing = keys.filter(pc.invert(pc.is_in(keys, known)))
        if len(missing):
            raise UserError(
                f"{where} lacks {len(missing)} of the {len(keys)} videos of the split {name}: "
                f"{shown(missing.to_pylist())}: correct their keys, or leave them out with --allow-missing"
            )
    check_separate_sides(table.replaced({name: keys.to_pylist() for name, keys in new.items()}), where)


def check_separate_sides(table: SplitTable, where: str) -> None:
    """Raise UserError for a video in a training split and in the test split beside it (`other_side`)."""
    for name, keys in table.members.items():
        other = other_side(name)
        if other and other in table.members:
            both = keys.filter(pc.is_in(keys, table.members[other]))
            if len(both):
                count = "1 video is" if len(both) == 1 else f"{len(both)} videos are"
                raise UserError(
                    f"{where}: {count} in {name} and in {other}: {shown(both.to_pylist())}: put each into one of them"
                )


def other_side(name: str) -> str | None:
    """Return the name of the test split that belongs to a training split: test2 for train2, fold1-test for fold1-train,
    x-held for x-fit; None for other names."""
    if match := re.fullmatch(r"(.*[-_])?train([-_]?\d*)", name):
        return f"{match[1] or ''}test{match[2]}"
    return f"{name.removesuffix('-fit')}-held" if name.endswith("-fit") else None


def check_split_name(name: str) -> None:
    """Raise UserError for a name that cannot be that of a split."""
    if not SPLIT_NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r} cannot be the name of a split: use letters, digits, _ and - (at most 80)")


def shown(keys: list[str]) -> str:
    """Return the first keys of a list, for a message."""
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
