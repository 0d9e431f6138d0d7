"""The manifest: one row per annotated video, with its key, label and split."""

import hashlib
import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import pyarrow as pa

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import describe_classes, describe_splits
from lgd.pipeline.dataset.tables import MANIFEST_SCHEMA
from lgd.pipeline.storage.checked_json import read_json
from lgd.preprocessing.annotations.all_splits import members
from lgd.preprocessing.annotations.entries import UNLABELLED_SPLIT, Annotations, Entry, safe_key, short_hash
from lgd.preprocessing.annotations.text_files import and_more
from lgd.preprocessing.annotations.validation_split import choose_validation_groups, choose_validation_keys
from lgd.preprocessing.video.files import composed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Video:
    """One row of the manifest.

    key: unique, with letters, digits, _ and - only. path: relative to the folder of videos, with forward slashes; of
    a missing file, the path that was looked for. label: index into the classes. label and
    class_name are None for a video without a label. start_s, end_s: the interval to use, None if it starts or ends with
    the video. missing: the video is listed but the file does not exist."""

    key: str
    path: str
    label: int | None
    class_name: str | None
    split: str
    start_s: float | None = None
    end_s: float | None = None
    missing: bool = False


@dataclass(frozen=True)
class Manifest:
    """All listed videos, ordered by split and key, and the names of the classes in the order of their labels.

    members: name and sorted keys of each split of the table, if the annotations are of several splits."""

    videos: tuple[Video, ...]
    classes: tuple[str, ...]
    # The rest is not part of the stored table.
    annotations_format: str = field(default="", compare=False)  # as printed
    members: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), compare=False)

    def table(self) -> pa.Table:
        """Return the rows as an Arrow table, with the classes in its metadata."""
        columns = {name: [getattr(video, name) for video in self.videos] for name in MANIFEST_SCHEMA.names}
        return pa.table(columns, MANIFEST_SCHEMA).replace_schema_metadata({"classes": json.dumps(self.classes)})

    @classmethod
    def from_table(cls, table: pa.Table) -> "Manifest":
        """Return the manifest that `table` was created from. Raises DamagedFile if it has no list of classes."""
        classes = tuple(read_json(list[str], (table.schema.metadata or {}).get(b"classes", b""), "the list of classes"))
        columns = [table.column(name).to_pylist() for name in MANIFEST_SCHEMA.names]
        return cls(tuple(Video(*row) for row in zip(*columns, strict=True)), classes)

    def describe(self) -> str:
        """Return the number of videos, the classes, and the videos by split, as text."""
        splits = Counter(video.split for video in self.videos)
        unlabelled = Counter(video.split for video in self.videos if video.label is None)
        by_split = describe_splits(splits, unlabelled)
        by_split += "".join(f", {name} {len(keys)}" for name, keys in self.members)
        return f"{len(self.videos)} listed videos in {describe_classes(self.classes)}; videos by split: {by_split}"

    def fingerprint(self) -> str:
        """Return the SHA-256 of the classes and all rows, in hexadecimal: equal manifests have equal fingerprints."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        row = attrgetter(*MANIFEST_SCHEMA.names)
        for video in self.videos:
            digest.update(json.dumps(row(video)).encode())
        return digest.hexdigest()


def create_manifest(annotations: Annotations, group: str | None, val_fraction: float) -> Manifest:
    """Assign keys, labels and splits. Without a list of classes, the labels are in the order of `sort_classes`.
    Names of classes have composed letters (`composed`).

    group, val_fraction: see `choose_validation_keys`.
    Raises UserError for classes that are not in the list, no classes, repeated keys and repeated files."""
    entries = annotations.entries
    _check_repeated_files(entries)
    keys = _assign_keys(entries)
    names = [None if entry.class_name is None else composed(entry.class_name) for entry in entries]
    classes = annotations.classes and tuple(map(composed, annotations.classes))
    if classes is None:
        classes = sort_classes({name for name in names if name is not None})
    _check_classes(classes)
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [entry for entry, name in zip(entries, names, strict=True) if name is not None and name not in labels]
    if unknown:
        raise UserError(
            f"{unknown[0].where}: class {unknown[0].class_name!r} is not in the list of {len(classes)} classes"
            f"{and_more(len(unknown))}"
        )
    splits = _assign_splits(entries, keys, group, val_fraction=val_fraction)
    videos = [
        Video(key, e.path, None if name is None else labels[name], name, split, e.start_s, e.end_s, e.missing)
        for e, key, name, split in zip(entries, keys, names, splits, strict=True)
    ]
    videos.sort(key=lambda video: (video.split, video.key))
    return Manifest(tuple(videos), classes, members=members(entries, keys))


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Sort classes by name; by number if all names are numbers, so that label 2 comes before label 10."""
    names = set(names)
    if all(re.fullmatch(r"[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _assign_keys(entries: Sequence[Entry]) -> list[str]:
    """Return the given keys; for other entries, keys made from the path without its extension.

    Where such keys are equal, the annotated times or a hash of the path is added: to all of them, so that the keys do
    not depend on the order of the entries."""
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.key and (earlier := first.setdefault(entry.key, entry)) is not entry:
            raise UserError(f"{entry.where}: key {entry.key} is already used in {earlier.where}: keys must be unique")
    keys = [entry.key or safe_key(os.path.splitext(entry.listed or entry.path)[0]) for entry in entries]
    for suffix in (_interval_suffix, _hash_suffix, _spelling_suffix):
        shared = {key for key, count in Counter(keys).items() if count > 1}
        keys = [
            f"{key}-{suffix(entry)}".rstrip("-") if key in shared and not entry.key else key
            for entry, key in zip(entries, keys, strict=True)
        ]
    return keys


def _interval_suffix(entry: Entry) -> str:
    """Return the annotated interval in milliseconds; an empty string if it is the complete video."""
    if entry.start_s is None and entry.end_s is None:
        return ""
    end = "end" if entry.end_s is None else f"{round(entry.end_s * 1000):07d}"
    return f"{round((entry.start_s or 0) * 1000):07d}-{end}"


def _hash_suffix(entry: Entry) -> str:
    return short_hash(f"{composed(entry.listed or entry.path)} {entry.start_s} {entry.end_s}")


def _spelling_suffix(entry: Entry) -> str:
    """Return a hash that differs for two files whose names are the same letters in two forms."""
    return short_hash(f"{entry.path} {entry.start_s} {entry.end_s}")


def _check_repeated_files(entries: Sequence[Entry]) -> None:
    first: dict[tuple[str, float | None, float | None], Entry] = {}
    for entry in entries:
        earlier = first.setdefault((entry.path, entry.start_s, entry.end_s), entry)
        if earlier is not entry:
            raise UserError(
                f"{entry.where}: {entry.path} is already listed in {earlier.where}: list each video, or each interval "
                "of a video (start_s, end_s), once"
            )


def _assign_splits(
    entries: Sequence[Entry], keys: Sequence[str], group: str | None, *, val_fraction: float
) -> list[str]:
    """Return the split of each video: as annotated, or val for a fraction of the videos and train for the rest.

    Videos without a label and without a split are in UNLABELLED_SPLIT."""
    labeled = [entry for entry in entries if entry.class_name is not None]
    with_groups = any(entry.group is not None for entry in entries)
    if group is not None and with_groups:
        raise UsageError("--group cannot be used here: the annotations have the column group")
    without = [entry for entry in labeled if entry.split is None]
    if without and len(without) < len(labeled):
        raise UserError(
            f"{without[0].where}: no split{and_more(len(without))}, but other rows have a split: give a split for all "
            "rows or for none"
        )
    if without:
        val = _validation_keys(entries, keys, group, val_fraction=val_fraction, with_groups=with_groups)
        return [
            entry.split or (UNLABELLED_SPLIT if entry.class_name is None else "val" if key in val else "train")
            for entry, key in zip(entries, keys, strict=True)
        ]
    if group is not None:
        raise UsageError("--group cannot be used here: the annotations give the split of every video")
    splits = [entry.split or UNLABELLED_SPLIT for entry in entries]
    _check_groups(entries, splits)
    return splits


def _validation_keys(
    entries: Sequence[Entry], keys: Sequence[str], group: str | None, *, val_fraction: float, with_groups: bool
) -> set[str]:
    """Return the keys of the validation videos among those that have a label and no split."""
    videos_by_class: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    keys_by_group: defaultdict[str, list[str]] = defaultdict(list)
    for entry, key in zip(entries, keys, strict=True):
        if entry.class_name is not None:
            videos_by_class[composed(entry.class_name)].append((key, entry.path.rsplit("/", 1)[-1]))
            keys_by_group[entry.group or ""].append(key)
    if with_groups:
        return choose_validation_groups(keys_by_group, val_fraction, source="the column group")
    return choose_validation_keys(videos_by_class, val_fraction, group)


def _check_groups(entries: Sequence[Entry], splits: Sequence[str]) -> None:
    """Raise UserError if the annotations give the videos of one group different splits."""
    first: dict[str, tuple[str, Entry]] = {}
    mixed: dict[str, tuple[Entry, str, str, Entry]] = {}
    for entry, split in zip(entries, splits, strict=True):
        if entry.group is not None:
            other, earlier = first.setdefault(entry.group, (split, entry))
            if other != split:
                mixed.setdefault(entry.group, (entry, split, other, earlier))
    if mixed:
        name, (entry, split, other, earlier) = next(iter(mixed.items()))
        raise UserError(
            f"{entry.where}: the group {name!r}{and_more(len(mixed))} is in the split {split}, but in {other} in "
            f"{earlier.where}: put all videos of a group into one split, or remove the column group"
        )


def _check_classes(classes: Sequence[str]) -> None:
    """Raise UserError if there is no class or one is repeated, and log a warning if there is only one."""
    if not classes:
        raise UserError("no video has a label: give the names of the classes with --classes FILE")
    if repeated := [name for name, count in Counter(classes).items() if count > 1]:
        raise UserError(f"the list of classes has {repeated[0]!r} twice: remove one of them")
    if len(classes) == 1:
        log.warning("there is only one class, %s: a network cannot learn from it", classes[0])
