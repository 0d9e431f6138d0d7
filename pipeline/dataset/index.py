"""The index of a stream: for every video its shard, the byte at which each frame ends, and the CRC-32 of each frame.

It is an Arrow IPC file that is memory-mapped, so that a hundred million frames take none of a worker's private memory.
It is joined from the index parts of the shards (`index_parts`), and can be rebuilt from the tars alone
(`inspection.rebuild`). It is written last: a stream with an index is complete.

A file that is damaged or forged must not end the process: `read_places` checks it when it is opened.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.class_selection import NOT_SELECTED, selected_labels
from lgd.pipeline.dataset.dataset import DESCRIPTION, Dataset, index_name, shard_name
from lgd.pipeline.dataset.index_format import METADATA, SCHEMA, UNLABELLED, split_of
from lgd.pipeline.dataset.index_places import Places, check_labels, read_places
from lgd.pipeline.dataset.splits import members_of, missing_split
from lgd.pipeline.storage.checked_arrow import damaged_if_invalid, read_batches, read_schema
from lgd.pipeline.storage.checked_json import DamagedFile, read_json

ADVICE = "delete it and rerun `lgd preprocess` to recreate it"


@dataclass(frozen=True)
class _Record:
    """What the index of a stream says about itself. recipe: the hash of the stream spec."""

    stream: str
    recipe: str


class FrameBytes(NamedTuple):
    """Where n frames of one video are: bytes `start[i]` to `end[i]` (exclusive) of the tar `shard`.

    shard: path in the dataset. start, end: int64, n. crc32: uint32, n."""

    shard: str
    start: np.ndarray
    end: np.ndarray
    crc32: np.ndarray


class Index:
    """The opened index of one stream, with a row for each of its n videos.

    labels: int32, n, UNLABELLED for a video without a label, NOT_SELECTED for one of a class that is not among the
    selected ones (`Dataset.selection`). widths, heights: int32, n, of a stored frame in pixels.
    lengths: int32, n, frames.
    For everything else a worker keeps only the position in the mapped file: 56 bytes per video and none per frame.
    """

    def __init__(self, dataset: Dataset, stream: str):
        """The index of a remote dataset is kept in the dataset's cache for other workers and later runs; without a
        cache this worker keeps a copy in the temporary folder while the index is open.

        Raises UserError if the stream is missing, incomplete, damaged or not of dataset.json's spec."""
        self.spec = dataset.spec(stream)
        self.storage = dataset.storage
        self.classes = dataset.classes
        self._dataset = dataset
        self._split_rows: dict[str, np.ndarray] = {}  # of the splits that were asked for
        self.cache = None if self.storage.local else dataset.cache
        name = index_name(stream)
        source, self._rebuild = self.storage.display(name), rebuild_advice(dataset)
        with damaged_if_invalid(source, self._rebuild):
            mapped = self.cache and self.cache.map(self.storage, name, dataset.fingerprint)
            content = (mapped or self.storage.map(name)).read_buffer()
            text = read_schema(content, SCHEMA)[METADATA]
            record = read_json(_Record, text, f"the record in {source}", advice=self._rebuild)
            if (record.stream, record.recipe) != (stream, self.spec.hash):
                raise UserError(f"{source} was made with different settings than those in dataset.json: {ADVICE}")
            places = read_places(content)
            check_labels(places.label, len(dataset.stored_classes))
            _check_counts(places, dataset)
        self.widths, self.heights, self.lengths = places.width, places.height, places.length
        self.labels = selected_labels(dataset, places.label)
        self._places = places
        self._content = content
        self._bytes = np.frombuffer(content, np.uint8)
        self._words = np.frombuffer(content, np.uint32, count=content.size // 4)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split, in order (int64), of the shards or of splits.parquet.

        Raises UserError if the dataset does not have it, if it has no videos (of the selected classes), and if another
        command changed it since the dataset was opened."""
        if split not in self._split_rows:
            self._split_rows[split] = self._find_rows(split)
        return self._split_rows[split]

    def _find_rows(self, split: str) -> np.ndarray:
        if split in self._dataset.table_splits:
            keys = members_of(self._dataset, split)
            batches = read_batches(self._content, SCHEMA)
            present = pa.chunked_array([batch.column("key") for batch in batches], pa.string())
            rows = np.flatnonzero(pc.is_in(present, keys).to_numpy())
        else:
            splits = np.array([split_of(shard) for shard in self._places.shards])
            rows = np.flatnonzero((splits == split)[self._places.shard])
        rows = rows.compress(self.labels[rows] != NOT_SELECTED)
        if len(rows) == 0:
            raise missing_split(self._dataset, split, stream=self.spec.stream)
        rows.flags.writeable = False  # it is kept
        return rows

    def labeled_rows(self, split: str) -> np.ndarray:
        """Return the rows of a split whose videos have a label, in order (int64).

        Raises UserError if the dataset does not have the split, or none of its videos has a label."""
        rows = self.rows(split)
        labeled: np.ndarray = rows[self.labels[rows] != UNLABELLED]
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

    def split(self, row: int) -> str:
        """Return the split of the video in a row."""
        return split_of(self._places.shards[self._places.shard[row]])

    def shard(self, row: int) -> str:
        """Return the path of the shard of a row, in the dataset."""
        return shard_name(self.spec.stream, self._places.shards[self._places.shard[row]])

    def frames(self, row: int, numbers: np.ndarray) -> FrameBytes:
        """Return where frames of the video in a row are. numbers: of the frames, from 0; any integers, n.

        Raises DamagedFile if a frame does not end after its start."""
        places, length = self._places, self.lengths[row]
        ends = self._words[places.ends[row] : places.ends[row] + length]
        start = np.where(numbers > 0, ends[numbers - 1], 0) + places.offset[row]
        end = ends[numbers] + places.offset[row]
        if (end <= start).any():
            raise self.damaged(row)
        crc32 = self._words[places.crc32[row] : places.crc32[row] + length][numbers]
        return FrameBytes(self.shard(row), start, end, crc32)

    def damaged(self, row: int) -> DamagedFile:
        """Return the error for a video whose frames are not one after the other."""
        source = self.storage.display(index_name(self.spec.stream))
        return DamagedFile(f"{source} is damaged (frames of {self.key(row)} are not in order): {self._rebuild}")

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


def rebuild_advice(dataset: Dataset) -> str:
    """Return what to do about a damaged index."""
    return f"rebuild it from the shards with `lgd inspect {dataset.storage.display()} --rebuild-index`"


def _check_counts(places: Places, dataset: Dataset) -> None:
    """Raise ValueError unless the splits have the numbers of videos in dataset.json."""
    expected = {split: count for split, count in dataset.summary.get("splits", {}).items() if count}
    found: Counter[str] = Counter()
    for shard, count in zip(places.shards, np.bincount(places.shard).tolist(), strict=True):
        found[split_of(shard)] += count
    if found != expected:
        shown = [", ".join(f"{name} {count}" for name, count in sorted(each.items())) for each in (found, expected)]
        raise ValueError(f"videos by split: {shown[0]}; in {DESCRIPTION}: {shown[1]}")
