"""Where the values of an index are in its mapped file. Everything that a later look-up relies on is checked, once.

The time is proportional to the number of videos, not of frames: the values of `ends` and `crc32` are checked when a
frame is looked up (`Index.frames`) and read (`ClipReader`)."""

import re
import string
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lgd.pipeline.dataset.index_format import SCHEMA, UNLABELLED, split_of
from lgd.pipeline.storage.checked_arrow import read_batches

KEY_BYTES = (string.ascii_letters + string.digits + "_-").encode()
SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+-[0-9]{6,}")
WORD = 4  # bytes of a value of `ends` and `crc32`
MAX_OFFSET = 1 << 53  # bytes; no tar is as large, and sums with it do not overflow
_NUMBERS = [SCHEMA.get_field_index(name) for name in ("label", "width", "height")]
_KEY, _OFFSET, _ENDS, _CRC32 = (SCHEMA.get_field_index(name) for name in ("key", "offset", "ends", "crc32"))
HASH_FACTOR = 0x9E3779B97F4A7C15  # odd, so that each power is different


class Places(NamedTuple):
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


def read_places(content: pa.Buffer) -> Places:
    """Read the positions from a mapped file, and check the values of all columns but `ends` and `crc32`.

    Raises ValueError or pyarrow's errors if the file is damaged."""
    base = content.address
    shards: dict[str, int] = {}
    # Each grows as one block: thousands of small arrays would fragment the memory of the process.
    columns = [bytearray() for _ in range(11)]
    for batch in read_batches(content, SCHEMA):
        rows = batch.num_rows
        buffers = [column.buffers() for column in batch.columns]
        label, width, height = (_view(buffers[column][1], np.int32, rows) for column in _NUMBERS)
        key, first, first_crc32 = (_view(buffers[column][1], np.int32, rows + 1) for column in (_KEY, _ENDS, _CRC32))
        lengths = first[1:] - first[:-1]
        if not (first_crc32[1:] - first_crc32[:-1] == lengths).all():
            raise ValueError("a video has more checksums than frames, or fewer")
        data = [buffers[column][-1] for column in (_KEY, _ENDS, _CRC32)]
        if any(buffer is None for buffer in data):
            raise ValueError("a column without values")
        keys, ends, crc32 = (buffer.address - base for buffer in data)
        if ends % WORD or crc32 % WORD:
            raise ValueError("a buffer is not aligned")
        entries = [
            label,
            width,
            height,
            lengths,
            key[1:] - key[:-1],
            _shard_numbers(batch, shards),
            _view(buffers[_OFFSET][1], np.int64, rows),
            key[:-1] + np.int64(keys),
            first[:-1] + np.int64(ends // WORD),
            first_crc32[:-1] + np.int64(crc32 // WORD),
            _key_hashes(data[0], key),
        ]
        for column, entry in zip(columns, entries, strict=True):
            column += entry.data
    kinds = [np.int32] * 6 + [np.int64] * 4
    arrays = [np.frombuffer(column, kind) for column, kind in zip(columns, kinds, strict=False)]
    places = Places(list(shards), *arrays)
    _check_values(places)
    _check_unique(np.frombuffer(columns[-1], np.uint64), places, content)
    return places


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise ValueError if a label is neither that of a class nor UNLABELLED."""
    if len(labels) and (labels.min() < UNLABELLED or labels.max() >= classes):
        wrong = labels[(labels < UNLABELLED) | (labels >= classes)][0]
        raise ValueError(f"label {wrong}, but there are {classes} classes")


def _check_values(places: Places) -> None:
    for name, values, minimum in (
        ("width", places.width, 1),
        ("height", places.height, 1),
        ("number of frames", places.length, 1),
        ("offset", places.offset, 0),
        ("label", places.label, UNLABELLED),
    ):
        if len(values) and values.min() < minimum:
            raise ValueError(f"{name} {values.min()}")
    if len(places.offset) and places.offset.max() > MAX_OFFSET:
        raise ValueError(f"offset {places.offset.max()}")


def _shard_numbers(batch: pa.RecordBatch, shards: dict[str, int]) -> np.ndarray:
    """Return the number of each row's shard in `shards` (int32), to which new names are added with the next number."""
    rows = batch.num_rows
    names, splits = _repeated(batch.column("shard")), _repeated(batch.column("split"))
    if len(splits) != len(names):  # one of them is the same in all rows
        names, splits = names * (rows // len(names)), splits * (rows // len(splits))
    for name, split in dict.fromkeys(zip(names, splits, strict=True)):
        if not SHARD_NAME.fullmatch(name):
            raise ValueError(f"{name[:60]!r} is not the name of a shard")
        if split_of(name) != split:
            raise ValueError(f"shard {name} in the split {split[:60]!r}")
        shards.setdefault(name, len(shards))
    if len(names) == 1:
        return np.full(rows, shards[names[0]], np.int32)
    return np.array([shards[name] for name in names], np.int32)


def _repeated(column: pa.Array) -> list[str]:
    """Return the texts of a column: a single one if all are equal, which is much faster than `to_pylist`."""
    _, offsets, data = column.buffers()
    ends = _view(offsets, np.int32, len(column) + 1)
    size = int(ends[1] - ends[0])
    text = (data.to_pybytes() if data else b"")[ends[0] : ends[-1]]
    if text == text[:size] * len(column) and (ends[1:] - ends[:-1] == size).all():
        return [text[:size].decode()]
    texts: list[str] = column.to_pylist()
    return texts


def _key_hashes(data: pa.Buffer, ends: np.ndarray) -> np.ndarray:
    """Return a hash of each key (uint64), and check that they have valid letters.

    data: the keys, one after the other. ends: int32, n + 1, the byte at which each starts, and the end of the last."""
    first, last = ends.item(0), ends.item(-1)
    content = data.to_pybytes()[first:last]
    if content.translate(None, KEY_BYTES):
        raise ValueError("a key has other characters than letters, digits, _ and -")
    lengths = ends[1:] - ends[:-1]
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1:
        raise ValueError("an empty key")
    letters = np.frombuffer(content, np.uint8)
    powers = np.full(longest, HASH_FACTOR, np.uint64).cumprod()
    if longest == shortest:
        hashes: np.ndarray = letters.reshape(-1, longest).astype(np.uint64) @ powers
        return hashes
    position = np.arange(len(letters)) - np.repeat(ends[:-1] - first, lengths)
    return np.add.reduceat(letters * powers[position], ends[:-1] - first)


def _check_unique(hashes: np.ndarray, places: Places, content: pa.Buffer) -> None:
    """Raise ValueError if two keys are equal. hashes: uint64, one per key."""
    ordered = np.sort(hashes)
    if not (equal := ordered[1:][ordered[1:] == ordered[:-1]]).size:
        return
    seen: set[bytes] = set()
    for row in np.flatnonzero(np.isin(hashes, equal)):
        key = content.slice(int(places.key[row]), int(places.key_length[row])).to_pybytes()
        if key in seen:
            raise ValueError(f"{key.decode()[:60]} appears twice")
        seen.add(key)


def _view(buffer: pa.Buffer, kind: type, count: int) -> np.ndarray:
    """Return the values at the start of a buffer. (`to_numpy` of an Arrow array does the same, but imports pandas: 30
    MB and half a second.)"""
    return np.frombuffer(buffer, kind, count)
