"""The index of a stream: for every video which shard, at which byte each frame ends, and each frame's CRC-32.

An Arrow IPC file, memory-mapped, so that a hundred million frames cost a worker no private memory. It is put together
from the parts that the shard tasks write beside their shards (`<stream>/.parts/<shard>.arrow`), and can be rebuilt
from the tars alone. Written last: a stream with an index is whole.
"""

import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.dataset import Dataset, Recipe, index_name, shard_name
from pipeline.errors import UserError
from pipeline.storage import Storage

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("label", pa.int32()),
        ("width", pa.int32()),  # of a stored frame, pixels (both planes of flow together)
        ("height", pa.int32()),
        ("offset", pa.int64()),  # byte in the tar at which the first frame starts
        ("ends", pa.list_(pa.uint32())),  # byte at which each frame ends, counted from `offset`
        ("crc32", pa.list_(pa.uint32())),  # of each frame's bytes
    ]
)
METADATA = b"lgd"


class IndexRow(NamedTuple):
    """One video of one stream, as its shard task records it; the fields are those of SCHEMA."""

    key: str
    split: str
    shard: str
    label: int
    width: int
    height: int
    offset: int
    ends: Sequence[int]
    crc32: Sequence[int]


class FrameBytes(NamedTuple):
    """Where frames of one video lie: bytes `start[i] .. end[i]` of the tar `shard` (a path in the dataset)."""

    shard: str
    start: np.ndarray
    end: np.ndarray
    crc32: np.ndarray


def part_name(stream: str, shard: str) -> str:
    return f"{stream}/.parts/{shard}.arrow"


def split_of(shard: str) -> str:
    """The split in a shard's name: `train` of `train-000012`."""
    return shard.rpartition("-")[0]


def write_part(storage: Storage, stream: str, shard: str, rows: Sequence[IndexRow], record: Mapping[str, Any]) -> None:
    """Writes the index of one shard, and what its task wants to remember (JSON), atomically."""
    with storage.writer(part_name(stream, shard)) as file, _writer(file, record) as write:
        write(_table(rows))


def read_part(storage: Storage, stream: str, shard: str) -> tuple[pa.Table, dict[str, Any]]:
    """The index of one shard and what its task recorded with it."""
    with storage.open_whole(part_name(stream, shard)) as file:
        table = pa.ipc.open_file(file).read_all()
    return table, json.loads(table.schema.metadata[METADATA])


@contextmanager
def index_writer(storage: Storage, recipe: Recipe) -> Iterator[Callable[[pa.Table], None]]:
    """Joins the parts of all shards, given in order, into the stream's index, which appears when the block ends well:
    from then on the stream is whole."""
    record = {"stream": recipe.stream, "recipe": recipe.hash}
    with storage.writer(index_name(recipe.stream)) as file, _writer(file, record) as write:
        yield write


def rebuild_index(storage: Storage, recipe: Recipe, shards: Iterable[str]) -> None:
    """The same index as `index_writer` writes, from nothing but the tars: reads every byte of them.

    Raises UserError for a tar that is cut short or whose members are not a video's pair."""
    with index_writer(storage, recipe) as add:
        for shard in shards:
            add(_table(scan_shard(storage, recipe.stream, shard)))


def scan_shard(storage: Storage, stream: str, shard: str) -> list[IndexRow]:
    """The index rows of one shard, read from the tar itself. Raises UserError if it is damaged."""
    name = shard_name(stream, shard)
    rows: list[IndexRow] = []
    members: dict[str, Any] = {}
    try:
        with storage.open_whole(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                if content is None or suffix not in ("json", "mjpeg"):
                    raise UserError(f"{storage.show(name)} holds {member.name}, which no shard has: {ADVICE}")
                body = content.read()
                if suffix == "json":
                    members[key] = json.loads(body)
                    continue
                members[key + "."] = (member.offset_data, body)
            for key, about in [(key, about) for key, about in members.items() if not key.endswith(".")]:
                offset, body = members.pop(key + ".")
                ends = np.cumsum(about["bytes"])
                if int(ends[-1]) != len(body):
                    raise UserError(f"{key}.mjpeg of {storage.show(name)} is not as long as its frames: {ADVICE}")
                starts = np.concatenate([[0], ends[:-1]])
                crcs = [zlib.crc32(body[start:end]) for start, end in zip(starts, ends, strict=True)]
                size = about["width"], about["height"]
                rows.append(IndexRow(key, split_of(shard), shard, about["label"], *size, offset, ends.tolist(), crcs))
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"{storage.show(name)} is damaged ({error}): {ADVICE}") from error
    return rows


ADVICE = "delete it and run `lgd preprocess` again to have it made anew"


class Index:
    """The opened index of one stream.

    One entry a row: labels (int32), widths and heights (int32, pixels of a stored frame), lengths (int32, frames).
    """

    def __init__(self, dataset: Dataset, stream: str):
        """Raises UserError if the stream is missing, unfinished, damaged or not of dataset.json's recipe."""
        self.recipe = dataset.recipe(stream)
        self.storage = dataset.storage
        self.classes = dataset.classes
        name = index_name(stream)
        try:
            file = pa.ipc.open_file(dataset.storage.map(name))
            if not file.schema.equals(SCHEMA):
                raise UserError(f"{dataset.storage.show(name)} is not an index of this version: {ADVICE}")
            record = json.loads(file.schema.metadata[METADATA])
            self._batches = [file.get_batch(i) for i in range(file.num_record_batches)]
        except pa.ArrowInvalid as error:
            raise UserError(f"{dataset.storage.show(name)} is damaged ({error}): {ADVICE}") from error
        if record["recipe"] != self.recipe.hash:
            raise UserError(f"{dataset.storage.show(name)} was made by another recipe than dataset.json says: {ADVICE}")
        self._firsts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self.labels = self._numbers("label")
        self.widths = self._numbers("width")
        self.heights = self._numbers("height")
        self.lengths = np.concatenate(
            [np.zeros(0, np.int32), *(np.diff(batch.column("ends").offsets.to_numpy()) for batch in self._batches)]
        ).astype(np.int32)

    def _numbers(self, column: str) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int32), *(batch.column(column).to_numpy() for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def rows(self, split: str) -> np.ndarray:
        """Row numbers (int64) of a split, in order. Raises UserError for a split that the dataset does not have."""
        splits = [batch.column("split").to_numpy(zero_copy_only=False) for batch in self._batches]
        names = np.concatenate([np.zeros(0, object), *splits])
        rows = np.flatnonzero(names == split)
        if len(rows) == 0:
            there = ", ".join(sorted(set(names))) or "none"
            raise UserError(f"{self.storage.show()} has no split {split!r} in {self.recipe.stream}: it has {there}")
        return rows

    def key(self, row: int) -> str:
        batch, within = self._find(row)
        return batch.column("key")[within].as_py()

    def keys(self, rows: Iterable[int]) -> list[str]:
        return [self.key(row) for row in rows]

    def shards(self) -> dict[str, dict[str, int]]:
        """Of every shard that holds a video, the row of each of its keys."""
        shards: dict[str, dict[str, int]] = {}
        for batch, first in zip(self._batches, self._firsts[:-1], strict=True):
            pairs = zip(batch.column("shard").to_pylist(), batch.column("key").to_pylist(), strict=True)
            for within, (shard, key) in enumerate(pairs):
                shards.setdefault(shard, {})[key] = int(first) + within
        return shards

    def frames(self, row: int, numbers: np.ndarray) -> FrameBytes:
        """Where the frames with these numbers (from 0) of the video in a row lie."""
        batch, within = self._find(row)
        ends = _values(batch.column("ends"), within)
        offset = batch.column("offset")[within].as_py()
        start = np.where(numbers > 0, ends[numbers - 1], 0).astype(np.int64)
        shard = shard_name(self.recipe.stream, batch.column("shard")[within].as_py())
        return FrameBytes(
            shard,
            offset + start,
            offset + ends[numbers].astype(np.int64),
            _values(batch.column("crc32"), within)[numbers],
        )

    def _find(self, row: int) -> tuple[pa.RecordBatch, int]:
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return self._batches[number], int(row - self._firsts[number])


def _values(lists: pa.ListArray, row: int) -> np.ndarray:
    """One list of a list array, as a view on the mapped file."""
    first, last = lists.offsets[row].as_py(), lists.offsets[row + 1].as_py()
    return lists.values.slice(first, last - first).to_numpy()


def _table(rows: Sequence[IndexRow]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
    return pa.table([pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


@contextmanager
def _writer(file: Any, record: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """An Arrow file with a record in its metadata; a table of the shards is a batch of it."""
    schema = SCHEMA.with_metadata({METADATA: json.dumps(record, sort_keys=True)})
    with pa.ipc.new_file(file, schema) as writer:

        def write(table: pa.Table) -> None:
            if table.num_rows:
                writer.write_table(table.combine_chunks().cast(schema))

        yield write
