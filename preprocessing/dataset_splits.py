"""`lgd splits`: list the splits of a dataset, add some to its table, or remove them. No shard is read or changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, describe_classes, open_dataset
from lgd.pipeline.dataset.split_table import check_split_name
from lgd.pipeline.dataset.splits import change_splits, listed_videos, members_of, missing_split, rows_in_split
from lgd.pipeline.storage.lock import locked
from lgd.preprocessing.annotations.all_splits import warn_of_missing_classes
from lgd.preprocessing.annotations.folds import fold_splits, hold_out_splits
from lgd.preprocessing.annotations.memberships import (
    ListedVideos,
    group_by_name,
    read_group_csv,
    read_official,
    read_split_csv,
)
from lgd.preprocessing.annotations.options import SplitOptions
from lgd.preprocessing.annotations.validation_split import group_texts

MAX_CLASSES_SHOWN, MAX_SPLITS_SHOWN = 20, 6  # in the table of the classes; the JSON document has all


@dataclass(frozen=True)
class SplitDescription:
    """One split of a dataset."""

    table: bool
    """Whether it is in splits.parquet; otherwise it is a split of the shards."""
    videos: int
    """Number of its videos in the shards."""
    listed: int
    """Number of its listed videos: those in the shards and the rejected ones."""
    unlabelled: int
    """Number of its videos in the shards without a label."""
    classes: Mapping[str, int]
    """Number of its videos in the shards by class, in the order of the labels; 0 for a class that it lacks."""
    hash: str | None
    """Hash of its keys, which runs and scores keep; null for a split of the shards."""


@dataclass(frozen=True)
class SplitsResult(CommandResult):
    """Result of `lgd splits`: all splits of the dataset after the command."""

    dataset: str
    """Folder of the dataset."""
    videos: int
    """Number of videos in the shards."""
    added: list[str]
    """Splits that this run added."""
    removed: list[str]
    """Splits that this run removed."""
    splits: Mapping[str, SplitDescription]
    """The splits by name: those of the shards, then those of splits.parquet."""

    def lines(self) -> list[Line]:
        """Return a table of the splits, and one of their classes if these are few."""
        classes = list(next(iter(self.splits.values())).classes) if self.splits else []
        lines: list[Line] = [f"{self.dataset}: {self.videos} videos in {describe_classes(classes)}"]
        for what, names in (("added", self.added), ("removed", self.removed)):
            if names:
                lines.append(f"{what}: {', '.join(names)}")
        table = Table("split", "of", "videos", "rejected", "classes", "videos per class")
        for name, split in self.splits.items():
            counts = [count for count in split.classes.values() if count]
            span = f"{min(counts)} to {max(counts)}" if counts else "-"
            where = "table" if split.table else "shards"
            table.add_row(name, where, str(split.videos), str(split.listed - split.videos), str(len(counts)), span)
        lines.append(table)
        if len(classes) <= MAX_CLASSES_SHOWN and len(self.splits) <= MAX_SPLITS_SHOWN:
            by_class = Table("class", *self.splits)
            for each in classes:
                by_class.add_row(each, *(str(split.classes[each]) for split in self.splits.values()))
            lines.append(by_class)
        return lines


def splits_of_dataset(folder: str, options: SplitOptions) -> SplitsResult:
    """List the splits of the dataset in a folder, after the changes that the options ask for, under its lock.

    Raises UsageError for options that do not belong together, and UserError, one line that names the videos or the
    split, for lists that do not match the dataset."""
    changes = options.changes
    dataset = open_dataset(folder)
    dataset.check_has_stream()
    before = set(dataset.table_splits)
    if changes:
        with locked(dataset.storage, "lgd splits") as storage:
            dataset = open_dataset(folder)  # another command may have changed it
            before = set(dataset.table_splits)
            listed = listed_videos(storage)
            new = _new_splits(dataset, listed, options)
            known = listed.column("key").combine_chunks()
            change_splits(storage, dataset, new, known=known, removed=options.remove)
        dataset = open_dataset(folder)
        _warn_of_classes(dataset, [name for name in new if name in dataset.splits])
    after = set(dataset.table_splits)
    return SplitsResult(
        dataset=dataset.storage.display(),
        videos=int(dataset.summary["videos"]),
        added=[name for name in dataset.table_splits if name not in before],
        removed=sorted(before - after),
        splits=describe_all(dataset),
    )


def describe_all(dataset: Dataset) -> dict[str, SplitDescription]:
    """Return the description of every split of a dataset, by name."""
    videos, rejected = dataset.videos(["key", "split", "class"]), dataset.rejected().select(["key", "split"])
    described = {}
    for name, counts in dataset.splits.items():
        by_class = Counter(rows_in_split(dataset, videos, name).column("class").to_pylist())
        described[name] = SplitDescription(
            table=name in dataset.table_splits,
            videos=counts.videos,
            listed=counts.videos + rows_in_split(dataset, rejected, name).num_rows,
            unlabelled=counts.unlabelled,
            classes={each: by_class[each] for each in dataset.classes},
            hash=counts.hash,
        )
    return described


def _new_splits(dataset: Dataset, listed: pa.Table, options: SplitOptions) -> Mapping[str, Sequence[str]]:
    """Return the keys of the splits to add. listed: the manifest of the dataset."""
    videos = ListedVideos(dataset.storage, listed)
    source = options.annotations or options.csv
    if source is not None:
        if not source.exists():
            raise UserError(f"{source} does not exist: give a file or folder of lists")
        if options.csv is None:
            memberships = read_official(videos, source, options.split_number)
        else:
            memberships = read_split_csv(videos, source)
        memberships.check(source, dataset.storage.display(), allow_missing=options.allow_missing)
        if lost := len({video for videos in memberships.missing.values() for video in videos}):
            say(f"{lost} videos that {source} lists are not in {dataset.storage.display()} and are left out")
        return memberships.keys
    if options.folds is not None:
        check_split_name(f"{options.fold_name}1-train")
        groups, classes = _groups(dataset, videos, options, split=options.within)
        return fold_splits(classes, groups, options.folds, seed=options.seed, name=options.fold_name)
    if options.hold_out is not None:
        groups, classes = _groups(dataset, videos, options, split=options.hold_out)
        return hold_out_splits(classes, groups, options.hold_out, fraction=options.fraction, seed=options.seed)
    return {}


def _groups(
    dataset: Dataset, videos: ListedVideos, options: SplitOptions, *, split: str | None
) -> tuple[dict[str, list[str]], dict[str, list[str | None]]]:
    """Return the keys and the classes of the videos of each group. split: its listed videos, those of rejected ones
    too; None: all with a label."""
    table = videos.table
    if split is None:
        table = table.filter(table.column("label").is_valid())
    elif split in dataset.table_splits:
        table = table.filter(pc.is_in(table.column("key"), members_of(dataset, split)))
    elif split in dataset.own_splits:
        table = table.filter(pc.equal(table.column("split"), split))
    else:
        raise missing_split(dataset, split)
    keys, paths = (table.column(name).to_pylist() for name in ("key", "path"))
    if options.group is not None:
        names = {key: path.rsplit("/", 1)[-1] for key, path in zip(keys, paths, strict=True)}
        group_of: Mapping[str, str] = group_texts(names, options.group)
    else:
        assert options.group_csv is not None
        if not options.group_csv.exists():
            raise UserError(f"--group-csv {options.group_csv} does not exist: give a CSV file with key and group")
        given = read_group_csv(videos, options.group_csv)
        if without := [key for key in keys if key not in given]:
            raise UserError(
                f"{options.group_csv} has no group for {len(without)} of the {len(keys)} videos, such as "
                f"{', '.join(without[:3])}: give a group for each"
            )
        group_of = {key: given[key] for key in keys}
    groups = group_by_name(group_of)
    return groups, {group: [videos.classes[key] for key in members] for group, members in groups.items()}


def _warn_of_classes(dataset: Dataset, names: Sequence[str]) -> None:
    described = describe_all(dataset)
    warn_of_missing_classes(
        {name: {each for each, count in described[name].classes.items() if count} for name in names}
    )
