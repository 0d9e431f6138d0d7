"""What a dataset is: a folder of streams of shards, with `dataset.json`, `videos.parquet` and `rejected.parquet`.

DATASET/
  dataset.json       format, version, classes, the plan of shards, each stream's recipe, a summary
  manifest.parquet   every video that was asked for: what the shards were planned from
  videos.parquet     a row for each video that is in the shards
  rejected.parquet   a row for each video that is not, with the reason;  videos + rejected = manifest
  rgb/               train-000000.tar ... and index.arrow, which is written last: a stream with an index is whole
  flow/
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.storage.cache import ShardCache
from lgd.pipeline.storage.storage import Storage

FORMAT = "lgd-dataset"
VERSION = 1
DESCRIPTION = "dataset.json"
MANIFEST = "manifest.parquet"

Setting = str | int | float | bool


@dataclass(frozen=True)
class Stream:
    """One modality of every video.

    channels: of the network's input. lost_frames: a video of n frames has n - lost_frames frames in this stream.
    planes: gray planes that lie side by side in a stored frame (0: the stored frame is a color picture)."""

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
    """Raises UsageError for a stream that does not exist."""
    if name not in STREAMS:
        raise UsageError(f"there is no stream {name!r}: choose from {', '.join(STREAMS)}")
    return STREAMS[name]


@dataclass(frozen=True)
class StreamSpec:
    """Everything that decides a stream's bytes. Streams or shards of different recipes never mix."""

    stream: str
    settings: Mapping[str, Setting]

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over the stream's name and all settings."""
        text = json.dumps([self.stream, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: "StreamSpec") -> list[str]:
        """The settings that differ, as `name: mine -> theirs`."""
        names = sorted({*self.settings, *other.settings})
        return [
            f"{name}: {self.settings.get(name)} -> {other.settings.get(name)}"
            for name in names
            if self.settings.get(name) != other.settings.get(name)
        ]


@dataclass(frozen=True)
class Dataset:
    """An opened dataset.

    fingerprint: of the videos that are in it (keys, labels, splits, frames; sha256). summary: counts, for people."""

    storage: Storage
    fingerprint: str
    classes: tuple[str, ...]
    videos_per_shard: int
    specs: Mapping[str, StreamSpec]
    summary: Mapping[str, Any] = field(default_factory=dict)
    cache: ShardCache | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """The fields without the cache, which belongs to one process."""
        return {**self.__dict__, "cache": None}

    @property
    def streams(self) -> list[str]:
        """The names of the streams that are whole."""
        return [name for name in self.specs if self.storage.exists(index_name(name))]

    def spec(self, stream: str) -> StreamSpec:
        """The recipe of a whole stream. Raises UserError if the dataset lacks it or it is not finished."""
        stream_named(stream)
        if stream not in self.specs:
            raise UserError(
                f"{self.storage.display()} has no {stream} stream: add it with `lgd preprocess ... --streams {stream}`"
            )
        if stream not in self.streams:
            raise UserError(
                f"the {stream} stream of {self.storage.display()} is not finished: run its `lgd preprocess` command again"
            )
        return self.specs[stream]

    def videos(self, columns: list[str] | None = None) -> pa.Table:
        return read_table(self.storage, "videos.parquet", columns)

    def rejected(self) -> pa.Table:
        return read_table(self.storage, "rejected.parquet")

    def save(self) -> None:
        """Writes `dataset.json`."""
        description = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "videos_per_shard": self.videos_per_shard,
            "streams": {name: {"hash": spec.hash, "recipe": dict(spec.settings)} for name, spec in self.specs.items()},
            "summary": dict(self.summary),
        }
        self.storage.write(DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False).encode() + b"\n")


def open_dataset(root: str | Path | Storage, cache: ShardCache | None = None) -> Dataset:
    """Open a dataset. cache: keeps the index and the shards of a remote dataset on this machine.

    Raises UserError if it is missing, not a dataset, or of another version."""
    storage = root if isinstance(root, Storage) else Storage(root)
    if not storage.exists():
        raise UserError(
            f"there is no dataset {storage.display()}: make it with `lgd preprocess VIDEOS --out {storage.display()}`"
        )
    if not storage.exists(DESCRIPTION):
        raise UserError(
            f"{storage.display()} is not a dataset (it has no {DESCRIPTION}): make one with `lgd preprocess`"
        )
    try:
        description = json.loads(storage.read(DESCRIPTION))
        if description["format"] != FORMAT:
            raise KeyError("format")
        version = description["version"]
        if version != VERSION:
            raise UserError(
                f"{storage.display()} is a dataset of version {version}, and this program reads version {VERSION}: "
                "preprocess it again, or use the program that wrote it"
            )
        return Dataset(
            storage=storage,
            fingerprint=description["fingerprint"],
            classes=tuple(description["classes"]),
            videos_per_shard=description["videos_per_shard"],
            specs={name: StreamSpec(name, stream["recipe"]) for name, stream in description["streams"].items()},
            summary=description["summary"],
            cache=cache,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{storage.display(DESCRIPTION)} does not describe a dataset ({error!r}): preprocess it again"
        ) from error


def index_name(stream: str) -> str:
    return f"{stream}/index.arrow"


def shard_name(stream: str, shard: str) -> str:
    return f"{stream}/{shard}.tar"


def read_table(storage: Storage, name: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open_whole(name) as file:
        return pq.read_table(file, columns=columns)


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    with storage.writer(name) as file:
        pq.write_table(table, file)
