"""The index of a stream: for every video its shard, the byte at which each frame ends, and the CRC-32 of each frame.

It is an Arrow IPC file that is memory-mapped, so that a hundred million frames take none of a worker's private memory.
It is joined from the index parts that the shard tasks write (`<stream>/.parts/<shard>.arrow`), and can be rebuilt from
the tars alone. It is written last: a stream with an index is complete.
"""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec, index_name, shard_name
from lgd.pipeline.storage.storage import Storage

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("label", pa.int32()),
        ("width", pa.int32()),  # of a stored frame, pixels (both planes of flow together)
        ("height", pa.int32()),
        ("offset", pa.int64()),  # byte in the tar at which the first frame starts
        ("ends", pa.list_(pa.uint32())),  # byte after each frame, counted from `offset`
        ("crc32", pa.list_(pa.uint32())),  # of each frame's bytes
    ]
)
METADATA = b"lgd"
UNLABELLED = -1  # in the column label, of a video without one; there are no nulls, since the file is mapped


class IndexRow(NamedTuple):
    """One video of one stream, as its shard task records it. The fields are those of SCHEMA."""

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
    """Where n frames of one video are: bytes `start[i]` to `end[i]` (exclusive) of the tar `shard`.

    shard: path in the dataset. start, end: int64, n. crc32: uint32, n."""

    shard: str
    start: np.ndarray
    end: np.ndarray
    crc32: np.ndarray


def part_name(stream: str, shard: str) -> str:
    """Return the path of an index part, in the dataset."""
    return f"{stream}/.parts/{shard}.arrow"


def split_of(shard: str) -> str:
    """Return the split in the name of a shard: `train` for `train-000012`."""
    return shard.rpartition("-")[0]


def stored_label(label: int | None) -> int:
    """Return the label of a video as the index stores it: UNLABELLED for None."""
    return UNLABELLED if label is None else label


def write_part(
    storage: Storage, stream: str, shard: str, *, rows: Sequence[IndexRow], record: Mapping[str, Any]
) -> None:
    """Write the index part of a shard atomically. record: what its task keeps with it, as JSON."""
    with storage.writer(part_name(stream, shard)) as file, _writer(file, record) as write:
        write(_table(rows))


def read_part(storage: Storage, stream: str, shard: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return the index part of a shard (columns of SCHEMA) and the record that its task kept with it."""
    with storage.open_whole(part_name(stream, shard)) as file:
        table = pa.ipc.open_file(file).read_all()
    return table, json.loads(table.schema.metadata[METADATA])


@contextmanager
def index_writer(storage: Storage, spec: StreamSpec) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that adds an index part to the index of a stream; the parts of all shards are added in order.

    The index appears when the block ends without an error: from then on the stream is complete."""
    record = {"stream": spec.stream, "recipe": spec.hash}
    with storage.writer(index_name(spec.stream)) as file, _writer(file, record) as write:
        yield write


def rebuild_index(storage: Storage, spec: StreamSpec, shards: Iterable[str]) -> None:
    """Write the same index as `index_writer` from the tars alone, reading every byte of them.

    Raises UserError if a tar is cut off or its members are not the two files of each video."""
    with index_writer(storage, spec) as add:
        for shard in shards:
            add(_table(scan_shard(storage, spec.stream, shard)))


def scan_shard(storage: Storage, stream: str, shard: str) -> list[IndexRow]:
    """Return the index rows of one shard, read from the tar itself. Raises UserError if it is damaged."""
    name = shard_name(stream, shard)
    rows: list[IndexRow] = []
    metadata: dict[str, dict[str, Any]] = {}
    frames: dict[str, tuple[int, bytes]] = {}  # the byte at which they start in the tar, and the frames
    try:
        with storage.open_whole(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                if content is None or suffix not in ("json", "mjpeg"):
                    raise UserError(
                        f"{storage.display(name)} contains {member.name}, which does not belong in a shard: {ADVICE}"
                    )
                if suffix == "json":
                    metadata[key] = json.loads(content.read())
                else:
                    frames[key] = member.offset_data, content.read()
            for key, video in metadata.items():
                offset, body = frames.pop(key)
                ends = np.cumsum(video["bytes"])
                if int(ends[-1]) != len(body):
                    raise UserError(
                        f"{key}.mjpeg of {storage.display(name)} does not have the length of its frames: {ADVICE}"
                    )
                starts = np.concatenate([[0], ends[:-1]])
                checksums = [zlib.crc32(body[start:end]) for start, end in zip(starts, ends, strict=True)]
                size = video["width"], video["height"]
                rows.append(
                    IndexRow(
                        key,
                        split_of(shard),
                        shard,
                        stored_label(video["label"]),
                        *size,
                        offset,
                        ends.tolist(),
                        checksums,
                    )
                )
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"{storage.display(name)} is damaged ({error}): {ADVICE}") from error
    return rows


ADVICE = "delete it and rerun `lgd preprocess` to recreate it"


class Index:
    """The opened index of one stream, with a row for each of its n videos.

    labels: int32, n, UNLABELLED for a video without a label. widths, heights: int32, n, of a stored frame in pixels.
    lengths: int32, n, frames.
    For everything else a worker keeps only the position in the mapped file: 56 bytes per video and none per frame.
    """

    def __init__(self, dataset: Dataset, stream: str):
        """The index of a remote dataset is kept in the dataset's cache for other workers and later runs; without a
        cache this worker keeps a copy in the temporary folder while the index is open.

        Raises UserError if the stream is missing, unfinished, damaged or not of dataset.json's recipe."""
        self.spec = dataset.spec(stream)
        self.storage = dataset.storage
        self.classes = dataset.classes
        self.cache = None if self.storage.local else dataset.cache
        name = index_name(stream)
        mapped = self.cache and self.cache.map(self.storage, name, dataset.fingerprint)
        content = (mapped or self.storage.map(name)).read_buffer()
        try:
            file = pa.ipc.open_file(content)
            if not file.schema.equals(SCHEMA):
                raise UserError(f"{dataset.storage.display(name)} is not an index that this version reads: {ADVICE}")
            record = json.loads(file.schema.metadata[METADATA])
            if record["recipe"] != self.spec.hash:
                raise UserError(
                    f"{dataset.storage.display(name)} was made with different settings than those in dataset.json: "
                    f"{ADVICE}"
                )
            places = _places(file, content.address)
        except pa.ArrowInvalid as error:
            raise UserError(f"{dataset.storage.display(name)} is damaged ({error}): {ADVICE}") from error
        self.labels, self.widths, self.heights = places.label, places.width, places.height
        self.lengths = places.length
        self._places = places
        self._bytes = np.frombuffer(content, np.uint8)
        self._words = np.frombuffer(content, np.uint32, count=content.size // 4)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split, in order (int64). Raises UserError if the dataset does not have it."""
        splits = np.array([split_of(shard) for shard in self._places.shards])
        rows = np.flatnonzero((splits == split)[self._places.shard])
        if len(rows) == 0:
            existing = ", ".join(sorted(set(splits.tolist()))) or "none"
            raise UserError(
                f"{self.storage.display()} has no split {split!r} in {self.spec.stream}: choose from {existing}"
            )
        return rows

    def labeled_rows(self, split: str) -> np.ndarray:
        """Return the rows of a split whose videos have a label, in order (int64).

        Raises UserError if the dataset does not have the split, or none of its videos has a label."""
        rows = self.rows(split)
        labeled = rows[self.labels[rows] != UNLABELLED]
        if len(labeled) == 0:
            raise UserError(
                f"{self.storage.display()}: no video of the split {split} has a label: choose another split"
            )
        return labeled

    def key(self, row: int) -> str:
        """Return the key of the video in a row."""
        first = self._places.key[row]
        return self._bytes[first : first + self._places.key_length[row]].tobytes().decode()

    def keys(self, rows: Iterable[int]) -> list[str]:
        """Return the keys of the videos in these rows."""
        return [self.key(row) for row in rows]

    def shards(self) -> dict[str, dict[str, int]]:
        """Return, for every shard that contains a video, the row of each of its keys."""
        shards: dict[str, dict[str, int]] = {shard: {} for shard in self._places.shards}
        for row, number in enumerate(self._places.shard):
            shards[self._places.shards[number]][self.key(row)] = row
        return shards

    def shard(self, row: int) -> str:
        """Return the path of the shard of a row, in the dataset."""
        return shard_name(self.spec.stream, self._places.shards[self._places.shard[row]])

    def frames(self, row: int, numbers: np.ndarray) -> FrameBytes:
        """Return where frames of the video in a row are. numbers: of the frames, from 0; any integers, n."""
        places, length = self._places, self.lengths[row]
        ends = self._words[places.ends[row] : places.ends[row] + length]
        start = np.where(numbers > 0, ends[numbers - 1], 0) + places.offset[row]
        crc32 = self._words[places.crc32[row] : places.crc32[row] + length][numbers]
        return FrameBytes(self.shard(row), start, ends[numbers] + places.offset[row], crc32)

    def shard_identity(self, row: int) -> str:
        """Return 32 hexadecimal digits that identify the shard of a row: equal only for shards with the same frames at
        the same positions."""
        places = self._places
        rows = np.flatnonzero(places.shard == places.shard[row])
        identity = hashlib.sha256(f"{self.spec.hash} {self.shard(row)}".encode())
        identity.update(places.offset[rows].data)
        for i in rows:
            for first in (places.ends[i], places.crc32[i]):
                identity.update(self._words[first : first + self.lengths[i]].data)
        return identity.hexdigest()[:32]


class _Places(NamedTuple):
    """Where the values of each row are in the mapped file. The arrays have one entry per row.

    key: its first byte. ends, crc32: the first of `length` values, counted in words of 4 bytes. offset: as in SCHEMA.
    shard: number of a name in `shards`."""

    shards: list[str]
    label: np.ndarray
    width: np.ndarray
    height: np.ndarray
    length: np.ndarray
    key_length: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    key: np.ndarray
    ends: np.ndarray
    crc32: np.ndarray


def _places(file: pa.RecordBatchFileReader, base: int) -> _Places:
    """Read the positions from a mapped file. base: the address at which it is mapped; its batches are views of it."""
    shards: dict[str, int] = {}
    # Each grows as one block: thousands of small arrays would fragment the memory of the process.
    columns = [bytearray() for _ in range(10)]
    for i in range(file.num_record_batches):
        batch = file.get_batch(i)
        rows = batch.num_rows
        keys, ends, crc32 = (batch.column(name).buffers() for name in ("key", "ends", "crc32"))
        key, first, first_crc32 = (_view(buffers[1], np.int32, rows + 1) for buffers in (keys, ends, crc32))
        coded = batch.column("shard").dictionary_encode()
        numbers = [shards.setdefault(name, len(shards)) for name in coded.dictionary.to_pylist()]
        entries = [
            *(_view(batch.column(name).buffers()[1], np.int32, rows) for name in ("label", "width", "height")),
            first[1:] - first[:-1],
            key[1:] - key[:-1],
            np.array(numbers, np.int32)[_view(coded.indices.buffers()[1], np.int32, rows)],
            _view(batch.column("offset").buffers()[1], np.int64, rows),
            key[:-1] + np.int64(keys[2].address - base),
            first[:-1] + np.int64((ends[3].address - base) // 4),
            first_crc32[:-1] + np.int64((crc32[3].address - base) // 4),
        ]
        for column, entry in zip(columns, entries, strict=True):
            column += entry.data
    kinds = [np.int32] * 6 + [np.int64] * 4
    arrays = [np.frombuffer(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return _Places(list(shards), *arrays)


def _view(buffer: pa.Buffer, kind: type, count: int) -> np.ndarray:
    """Return the values at the start of a buffer. (`to_numpy` of an Arrow array does the same, but imports pandas: 30
    MB and half a second.)"""
    return np.frombuffer(buffer, kind, count)


def _table(rows: Sequence[IndexRow]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
    return pa.table([pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


@contextmanager
def _writer(file: Any, record: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """Open an Arrow file with a record in its metadata; each table that is written becomes one batch."""
    schema = SCHEMA.with_metadata({METADATA: json.dumps(record, sort_keys=True)})
    with pa.ipc.new_file(file, schema) as writer:

        def write(table: pa.Table) -> None:
            if table.num_rows:
                writer.write_table(table.combine_chunks().cast(schema))

        yield write
