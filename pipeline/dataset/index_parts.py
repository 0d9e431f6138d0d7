"""Index parts: what the task of a shard writes (`<stream>/.parts/<shard>.arrow`), and of which the index is joined.

A part holds the index rows of the shard and a record, for example

    {"recipe": "4b881940004b8cd4", "identity": "...", "bytes": 276480, "videos": [{"bytes": 40100}], "rejected": []}

with the hash of the stream spec, the hash of the list of videos, the size of the tar, for each row the columns of
videos.parquet that depend on the stream, and for each rejected video its key, reason and detail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index_format import METADATA, SCHEMA, IndexRow, record_writer, table_of
from lgd.pipeline.dataset.index_places import read_places
from lgd.pipeline.storage.checked_arrow import damaged_if_invalid, read_batches, read_schema
from lgd.pipeline.storage.checked_json import parse_json, read_json
from lgd.pipeline.storage.storage import Storage

ADVICE = "rerun `lgd preprocess`, which creates this shard again"


@dataclass(frozen=True)
class _StreamColumns:
    bytes: int
    saturated: float | None = None

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise UserError(f"field 'videos.bytes' is {self.bytes}, must be at least 1")
        if self.saturated is not None and not 0 <= self.saturated <= 1:
            raise UserError(f"field 'videos.saturated' is {self.saturated}, must be from 0 to 1")


@dataclass(frozen=True)
class _Rejection:
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class _PartRecord:
    recipe: str
    identity: str
    bytes: int
    videos: list[_StreamColumns]
    rejected: list[_Rejection]


def part_name(stream: str, shard: str) -> str:
    """Return the path of an index part, in the dataset."""
    return f"{stream}/.parts/{shard}.arrow"


def write_part(
    storage: Storage, stream: str, shard: str, *, rows: Sequence[IndexRow], record: Mapping[str, Any]
) -> None:
    """Write the index part of a shard atomically. record: what its task keeps with it, as JSON."""
    with storage.writer(part_name(stream, shard)) as file, record_writer(file, record) as write:
        write(table_of(rows))


def read_part(storage: Storage, stream: str, shard: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return the index part of a shard (columns of SCHEMA) and the record that its task kept with it.

    Raises FileNotFoundError if it does not exist, and DamagedFile if a value cannot be what the task wrote."""
    name = part_name(stream, shard)
    content, source = pa.py_buffer(storage.read(name)), storage.display(name)
    with damaged_if_invalid(source, ADVICE):
        text = read_schema(content, SCHEMA)[METADATA]
        places = read_places(content)
        table = pa.Table.from_batches(read_batches(content, SCHEMA), SCHEMA)
        record = read_json(_PartRecord, text, f"the record in {source}", advice=ADVICE)
        if places.shards not in ([shard], []):
            raise ValueError(f"it belongs to the shard {places.shards[0]}")
        if len(record.videos) != table.num_rows:
            raise ValueError(f"{table.num_rows} videos with the columns of {len(record.videos)}")
        words = np.frombuffer(content, np.uint32, count=content.size // 4)
        for row, video in enumerate(record.videos):
            ends = words[places.ends[row] : places.ends[row] + places.length[row]].astype(np.int64)
            if (np.diff(ends, prepend=0) <= 0).any() or ends[-1] != video.bytes:
                raise ValueError("the ends of the frames are not in order, or not those of the video's bytes")
            if places.offset[row] + ends[-1] > record.bytes:
                raise ValueError(f"frames beyond the {record.bytes} bytes of the shard")
    document: dict[str, Any] = parse_json(text, source)
    return table, document
