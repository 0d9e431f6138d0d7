"""A dataset: a folder of streams, each made of shards, with tables of its videos.

DATASET/
  dataset.json       format, version, classes, videos per shard, the spec of each stream, a summary
  manifest.parquet   all listed videos, from which the shards were planned
  videos.parquet     a row for each video that is in the shards
  rejected.parquet   a row for each video that is not, with the reason;  videos + rejected = manifest
  splits.parquet     optional: splits in addition to those of the shards, a row per membership, see `split_table`
  rgb/               train-000000.tar ... and index.arrow, which is written last: a stream with an index is complete
  flow/
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from lgd import __version__
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.split_table import SplitCounts, count_members
from lgd.pipeline.dataset.tables import REJECTED, REJECTED_SCHEMA, VIDEOS, read_table, videos_schema
from lgd.pipeline.storage.cache import ShardCache
from lgd.pipeline.storage.checked_json import DamagedFile, parse_json, read_json
from lgd.pipeline.storage.storage import Storage

FORMAT = "lgd-dataset"
VERSION = 1
DESCRIPTION = "dataset.json"
ADVICE = "restore it from a backup, or preprocess the videos into a new folder"
SHOWN_CLASSES = 4  # names in a summary

Setting = str | int | float | bool
# What a spec means that does not contain a setting, because it was written before the setting existed. A new spec with
# the same value does not contain the setting either: its hash stays the same.
IMPLIED_SETTINGS: Mapping[str, Setting] = MappingProxyType({"untagged_matrix": "bt601"})


@dataclass(frozen=True)
class Stream:
    """One modality of every video.

    channels: of the input of the network. lost_frames: a video of n frames has n - lost_frames frames in this stream.
    planes: number of gray planes side by side in a stored frame (0: the stored frame is a color picture)."""

    name: str
    channels: int
    lost_frames: int
    planes: int


STREAMS: Mapping[str, Stream] = MappingProxyType(
    {
        "rgb": Stream("rgb", channels=3, lost_frames=0, planes=0),
        "flow": Stream("flow", channels=2, lost_frames=1, planes=2),
    }
)


def stream_named(name: str) -> Stream:
    """Return the stream of this name. Raises UsageError if there is none."""
    if name not in STREAMS:
        raise UsageError(f"unknown stream {name!r}: choose from {', '.join(STREAMS)}")
    return STREAMS[name]


@dataclass(frozen=True)
class StreamSpec:
    """Everything that decides the bytes of a stream. Streams or shards of different specs never mix.

    settings: by name, such as fps and short_side."""

    stream: str
    settings: Mapping[str, Setting]

    @property
    def hash(self) -> str:
        """SHA-256 of the name of the stream and all settings, the first 16 hexadecimal digits."""
        text = json.dumps([self.stream, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: "StreamSpec") -> list[str]:
        """Return the settings that differ, each as `name: value of self -> value of other`."""
        ours, theirs = ({**IMPLIED_SETTINGS, **spec.settings} for spec in (self, other))
        return [
            f"{name}: {ours.get(name)} -> {theirs.get(name)}"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]


@dataclass(frozen=True)
class ClassSelection:
    """The classes of a dataset that a run uses, see `lgd.pipeline.dataset.class_selection`.

    stored_classes: all classes of the dataset, by which its files are labeled. splits: counts of the selected videos.
    """

    stored_classes: tuple[str, ...]
    splits: Mapping[str, SplitCounts]


@dataclass(frozen=True)
class Dataset:
    """A dataset as it was when it was opened.

    fingerprint: SHA-256 of its videos (keys, labels, splits, frames). summary: counts, for people; its "splits" are the
    shards' own. streams: the complete streams, in the order of `specs`; opening the dataset again finds those that were
    completed since. cache: keeps the index and the shards of a remote dataset on this machine. table_splits: counts of
    the splits of splits.parquet. selection: if `classes` are some of the dataset's classes."""

    storage: Storage
    fingerprint: str
    classes: tuple[str, ...]
    videos_per_shard: int
    specs: Mapping[str, StreamSpec]
    summary: Mapping[str, Any] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    cache: ShardCache | None = field(default=None, compare=False, repr=False)
    table_splits: Mapping[str, SplitCounts] = field(default_factory=dict)
    selection: ClassSelection | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The fields without the cache, which belongs to one process."""
        return {**self.__dict__, "cache": None}

    def spec(self, stream: str) -> StreamSpec:
        """Return the spec of a complete stream. Raises UserError if the stream is missing or incomplete."""
        stream_named(stream)
        if stream not in self.specs:
            raise UserError(
                f"{self.storage.display()} has no {stream} stream: add it with `lgd preprocess ... --streams {stream}`"
            )
        if stream not in self.streams:
            raise UserError(
                f"the {stream} stream of {self.storage.display()} is incomplete: rerun its `lgd preprocess` command"
            )
        return self.specs[stream]

    @property
    def stored_classes(self) -> tuple[str, ...]:
        """The classes by which the files are labeled: `classes`, unless some of them are selected."""
        return self.selection.stored_classes if self.selection else self.classes

    @property
    def own_splits(self) -> Mapping[str, SplitCounts]:
        """The counts of the shards' own splits, by name."""
        unlabelled = self.summary.get("unlabelled", {})
        return {
            split: SplitCounts(videos, unlabelled.get(split, 0))
            for split, videos in self.summary.get("splits", {}).items()
        }

    @property
    def splits(self) -> Mapping[str, SplitCounts]:
        """The counts of all splits by name: the shards' own, then those of splits.parquet."""
        return self.selection.splits if self.selection else {**self.own_splits, **self.table_splits}

    def split_hash(self, split: str) -> str | None:
        """Return the hash of a split of splits.parquet; None for the shards' own, which the fingerprint contains."""
        return self.table_splits[split].hash if split in self.table_splits else None

    def labeled(self, split: str) -> int:
        """Return the number of videos of a split that have a label; 0 if the dataset does not have the split."""
        counts = self.splits.get(split, SplitCounts())
        return counts.videos - counts.unlabelled

    def unlabelled(self, split: str) -> int:
        """Return the number of videos of a split without a label."""
        return self.splits.get(split, SplitCounts()).unlabelled

    def check_has_stream(self) -> None:
        """Raise UserError if no stream is complete."""
        if not self.streams:
            self.spec(next(iter(self.specs), "rgb"))

    def videos(self, columns: list[str] | None = None) -> pa.Table:
        """Read videos.parquet: a row for each video in the shards. columns: default all.

        Raises UserError if it is missing or damaged."""
        schema = videos_schema(self.streams)
        return read_table(self.storage, VIDEOS, columns, schema=schema, classes=len(self.stored_classes))

    def rejected(self) -> pa.Table:
        """Read rejected.parquet: a row for each rejected video, with the reason and details.

        Raises UserError if it is missing or damaged."""
        return read_table(self.storage, REJECTED, schema=REJECTED_SCHEMA)

    def save(self) -> None:
        """Write `dataset.json`."""
        description = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "classes": list(self.stored_classes),
            "videos_per_shard": self.videos_per_shard,
            "streams": {name: {"hash": spec.hash, "recipe": dict(spec.settings)} for name, spec in self.specs.items()},
            "summary": dict(self.summary),
        }
        self.storage.write(DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True)
class _Header:
    """What `dataset.json` of every version has."""

    format: str
    version: int


@dataclass(frozen=True)
class _Stream:
    hash: str
    recipe: dict[str, Setting]


@dataclass(frozen=True)
class _Summary:
    """What commands use of the summary. It is empty until the first stream is complete."""

    videos: int | None = None
    rejected: int | None = None
    reasons: dict[str, int] | None = None
    frames: int | None = None
    splits: dict[str, int] | None = None
    bytes: dict[str, int] | None = None
    unlabelled: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Description:
    """The content of `dataset.json`."""

    fingerprint: str
    classes: list[str]
    videos_per_shard: int
    streams: dict[str, _Stream]
    summary: _Summary

    def check(self, specs: Mapping[str, StreamSpec], complete: Sequence[str], source: str) -> None:
        """Raise DamagedFile, which names the field, if a value is out of range or does not match others.

        complete: the streams with an index. source: name of the file."""
        problems = [
            ("classes", "is an empty list" if not self.classes else ""),
            ("classes", "contains a name twice" if len(set(self.classes)) < len(self.classes) else ""),
            ("videos_per_shard", f"is {self.videos_per_shard}" if self.videos_per_shard < 1 else ""),
        ]
        for name, spec in specs.items():
            place = f"streams.{name}"
            if name not in STREAMS:
                problems.append((place, "is the name of an unknown stream"))
            elif spec.hash != self.streams[name].hash:
                problems.append((f"{place}.recipe", "does not have the hash in the field 'hash'"))
            else:
                needed = [setting for setting in ("fps", "bound") if setting == "fps" or name == "flow"]
                problems += [
                    (f"{place}.recipe.{setting}", f"is {value!r}, must be a number above 0")
                    for setting in needed
                    if isinstance(value := spec.settings.get(setting), bool)
                    or not isinstance(value, int | float)
                    or not 0 < value < float("inf")
                ]
        for name, value in vars(self.summary).items():
            counts = value.values() if isinstance(value, dict) else [value or 0]
            problems.append((f"summary.{name}", "is missing" if complete and value is None else ""))
            problems.append((f"summary.{name}", "has a value below 0" if min(counts, default=0) < 0 else ""))
        splits = self.summary.splits
        if complete and splits is not None and sum(splits.values()) != self.summary.videos:
            problems.append(("summary.splits", f"has a sum other than the {self.summary.videos} videos"))
        for split, count in self.summary.unlabelled.items():
            if count > (splits or {}).get(split, 0):
                problems.append(("summary.unlabelled", f"has more videos of {split} than the split"))
        for name, problem in problems:
            if problem:
                raise DamagedFile(f"{source} is damaged (field {name!r} {problem}): {ADVICE}")


def open_dataset(root: str | Path | Storage, cache: ShardCache | None = None) -> Dataset:
    """Open a dataset and find its complete streams.

    root: a folder, local or remote. cache: keeps the index and the shards of a remote dataset on this machine.

    Raises UserError if the folder is missing, is not a dataset, or is a dataset of a different version, and if
    splits.parquet has a split with the name of one of the shards' own."""
    storage = root if isinstance(root, Storage) else Storage(root)
    if not storage.exists():
        raise UserError(
            f"dataset {storage.display()} does not exist: create it with "
            f"`lgd preprocess VIDEOS --out {storage.display()}`"
        )
    if not storage.exists(DESCRIPTION):
        raise UserError(
            f"{storage.display()} is not a dataset ({DESCRIPTION} is missing): create one with `lgd preprocess`"
        )
    source, content = storage.display(DESCRIPTION), storage.read(DESCRIPTION)
    header = read_json(_Header, content, source, advice=ADVICE)
    if header.format != FORMAT:
        raise UserError(f"{source} is not the description of a dataset (field 'format' is {header.format!r}): {ADVICE}")
    if header.version != VERSION:
        raise UserError(
            f"{storage.display()} is a dataset of version {header.version}; lgd {__version__} reads version {VERSION}: "
            "use the version of lgd that wrote it, or preprocess the videos again"
        )
    description = read_json(_Description, content, source, advice=ADVICE)
    specs = {name: StreamSpec(name, stream.recipe) for name, stream in description.streams.items()}
    streams = tuple(name for name in specs if storage.exists(index_name(name)))
    description.check(specs, streams, source)
    dataset = Dataset(
        storage=storage,
        fingerprint=description.fingerprint,
        classes=tuple(description.classes),
        videos_per_shard=description.videos_per_shard,
        specs=specs,
        summary=parse_json(content, source)["summary"],
        streams=streams,
        cache=cache,
    )
    counts = count_members(storage, dataset.own_splits, videos=dataset.videos if streams else None)
    return replace(dataset, table_splits=counts)


def describe_classes(names: Sequence[str]) -> str:
    """Return the number of classes and the first few names: `4 classes (bend, jack, wave1, wave2)`."""
    shown = ", ".join(names[:SHOWN_CLASSES])
    more = f", ... and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({shown}{more})"


def describe_splits(videos: Mapping[str, int], unlabelled: Mapping[str, int]) -> str:
    """Return the number of videos by split: `train 20, val 5, test 7 (7 without a label)`."""
    notes = {split: f" ({count} without a label)" for split, count in unlabelled.items() if count}
    return ", ".join(f"{split} {count}{notes.get(split, '')}" for split, count in videos.items())


def index_name(stream: str) -> str:
    """Return the path of the index of a stream, in the dataset."""
    return f"{stream}/index.arrow"


def shard_name(stream: str, shard: str) -> str:
    """Return the path of a shard such as train-000000, in the dataset."""
    return f"{stream}/{shard}.tar"
