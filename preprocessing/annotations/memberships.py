"""Splits of a dataset that exists, from lists: official ones, or a CSV file with a row per membership.

A listed video is found by its key, or by its path among those of the dataset's manifest; no video file is needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.all_splits import OWN_SPLIT, split_order
from lgd.preprocessing.annotations.csv_lists import read_csv_rows
from lgd.preprocessing.annotations.entries import NAME
from lgd.preprocessing.annotations.read import read_annotations
from lgd.preprocessing.annotations.text_files import and_more
from lgd.preprocessing.video.files import VideoFiles, composed, stem_of

SHOWN = 3  # videos in a message


class ListedVideos(VideoFiles):
    """The videos of a dataset's manifest in place of a folder of files. table: the manifest. folder: the dataset."""

    def __init__(self, folder: Storage, table: pa.Table) -> None:
        super().__init__(folder)
        self.table = table

    @cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.table.column("path").to_pylist())

    def exists(self, path: str) -> bool:
        """Return whether the manifest lists the path."""
        return path in self._listed

    @cached_property
    def classes(self) -> dict[str, str | None]:
        """The class of each key, None without a label."""
        return dict(zip(*(self.table.column(name).to_pylist() for name in ("key", "class_name")), strict=True))

    @cached_property
    def keys_by_path(self) -> dict[str, list[str]]:
        """The keys of each path: several, if intervals of the file are videos of their own."""
        keys: dict[str, list[str]] = {}
        for key, path in zip(*(self.table.column(name).to_pylist() for name in ("key", "path")), strict=True):
            keys.setdefault(path, []).append(key)
        return keys

    @cached_property
    def keys_by_interval(self) -> dict[tuple[str, float | None, float | None], str]:
        """The key of each path, start and end (seconds)."""
        columns = (self.table.column(name).to_pylist() for name in ("path", "start_s", "end_s", "key"))
        return {(path, start_s, end_s): key for path, start_s, end_s, key in zip(*columns, strict=True)}

    def keys_of_path(self, path: str) -> list[str]:
        """Return the keys of the videos at a listed path, which may begin in another folder and may have another
        extension; none if there are none. Raises UserError if several files match."""
        if path in self.keys_by_path:
            return self.keys_by_path[path]
        listed = f"/{_without_extension(path)}"
        found = [
            each
            for each in self.by_stem.get(composed(stem_of(path)), [])
            if f"/{_without_extension(each)}".endswith(listed) or listed.endswith(f"/{_without_extension(each)}")
        ]
        if len(found) > 1:
            raise UserError(f"{self.folder.display()} has several videos for {path}, such as {found[0]} and {found[1]}")
        return self.keys_by_path[found[0]] if found else []


@dataclass
class Memberships:
    """Splits that lists give: the keys of each, by name. missing: what is listed but not in the dataset, by split."""

    keys: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def check(self, source: Path, dataset: str, *, allow_missing: bool) -> None:
        """Raise UserError if videos are missing, unless that is allowed, and if all of them are."""
        splits = {*self.keys, *self.missing}
        lost = list(dict.fromkeys(video for videos in self.missing.values() for video in videos))
        if not any(self.keys.values()):
            raise UserError(
                f"{dataset} contains none of the {len(lost)} videos that {source} lists, such as "
                f"{', '.join(lost[:SHOWN])}: give the lists of this dataset"
            )
        if lost and not allow_missing:
            raise UserError(
                f"{dataset} lacks {len(lost)} videos that {source} lists: {', '.join(lost[:SHOWN])}"
                f"{', ...' if len(lost) > SHOWN else ''}: correct them, or leave them out with --allow-missing"
            )
        if empty := sorted(name for name in splits if not self.keys.get(name)):
            raise UserError(f"{dataset} contains no video of the split {empty[0]}{and_more(len(empty))} of {source}")


def read_official(videos: ListedVideos, annotations: Path, split_number: int | None = None) -> Memberships:
    """Return the splits of annotations in any format that gives splits: train1, test1, ... of UCF101 and HMDB51, or the
    names that the lists have.

    split_number: only train and test of this number, as train<N> and test<N>.
    Raises UserError for annotations without splits, and if the list has another class for a video than the dataset."""
    kind, listed = read_annotations(videos, annotations, split_number)
    result = Memberships()
    suffix = "" if split_number is None else str(split_number)
    wrong: list[str] = []
    for entry in listed.entries:
        names = entry.splits if entry.splits is not None else (entry.split and f"{entry.split}{suffix}",)
        if None in names or OWN_SPLIT in names:
            raise UserError(f"{annotations} gives no splits ({kind}): give lists of splits, or a CSV file with --csv")
        key = videos.keys_by_interval.get((entry.path, entry.start_s, entry.end_s))
        if key is None and len(keys := videos.keys_by_path.get(entry.path, [])) == 1 and entry.start_s is None:
            key = keys[0]
        if key is None and entry.key in videos.classes:
            key = entry.key
        for name in filter(None, names):
            (result.missing if key is None else result.keys).setdefault(name, []).append(key or entry.path)
        if key and entry.class_name and composed(videos.classes[key] or entry.class_name) != composed(entry.class_name):
            wrong.append(f"{key} is {videos.classes[key]!r} there and {entry.class_name!r} in {entry.where}")
    if wrong:
        raise UserError(
            f"{videos.folder.display()} has other classes than {annotations}: {wrong[0]}{and_more(len(wrong))}: give "
            "the lists of this dataset"
        )
    result.keys = {name: result.keys[name] for name in sorted(result.keys, key=split_order)}
    return result


def read_split_csv(videos: ListedVideos, file: Path) -> Memberships:
    """Return the splits of a CSV file with the columns key (or path) and split, a row per membership.

    Raises UserError for other columns, an empty value, and a name that cannot be that of a split."""
    result = Memberships()
    for line, keys, given, split in _rows(videos, file, "split"):
        if not NAME.fullmatch(split):
            raise UserError(
                f"{file} line {line}: {split!r} cannot be the name of a split: use letters, digits, _ and -"
            )
        for key in keys:
            result.keys.setdefault(split, []).append(key)
        if not keys:
            result.missing.setdefault(split, []).append(given)
    return result


def read_group_csv(videos: ListedVideos, file: Path) -> dict[str, str]:
    """Return the group of each key of a CSV file with the columns key (or path) and group.

    Rows of other videos are ignored. Raises UserError for other columns, an empty value, and a video in two groups."""
    groups: dict[str, str] = {}
    for line, keys, given, group in _rows(videos, file, "group"):
        for key in keys:
            if groups.setdefault(key, group) != group:
                raise UserError(f"{file} line {line}: {given} is in the group {group!r}, but in {groups[key]!r} above")
    return groups


def group_by_name(group_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the keys of each group. group_of: the group of each key."""
    groups: dict[str, list[str]] = {}
    for key, group in group_of.items():
        groups.setdefault(group, []).append(key)
    return groups


def _rows(videos: ListedVideos, file: Path, column: str) -> list[tuple[int, list[str], str, str]]:
    """Return the line, the keys (none if the dataset lacks the video), the given key or path, and the value of a column
    of each row."""
    rows = read_csv_rows(file)
    names = list(next(rows)[1])
    identifier = next((name for name in ("key", "path") if name in names), None)
    if identifier is None or column not in names:
        raise UserError(f"{file} has the columns {','.join(names) or '(none)'} but requires key (or path) and {column}")
    found = []
    for line, row in rows:
        given, value = row[identifier].strip(), row[column].strip()
        if not given or not value:
            raise UserError(f"{file} line {line}: no {column if given else identifier}")
        keys = ([given] if given in videos.classes else []) if identifier == "key" else videos.keys_of_path(given)
        found.append((line, keys, given, value))
    if not found:
        raise UserError(f"{file} lists no videos")
    return found


def _without_extension(path: str) -> str:
    folder, slash, _ = composed(path).rpartition("/")
    return f"{folder}{slash}{composed(stem_of(path))}"
