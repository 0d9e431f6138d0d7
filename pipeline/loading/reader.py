"""Read the bytes of clips: ranged reads from the shards by a pool of threads; each frame is checked against its CRC-32.

From a local folder, or from a copy of the shard in the cache, exactly the bytes of the clip's frames are read. From an
object store, frames that are close to each other are read in one request.
"""

import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar, cast

import numpy as np
import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index import FrameBytes, Index
from lgd.pipeline.storage.cache import TOUCH_S
from lgd.pipeline.storage.paths import check_file
from lgd.pipeline.storage.retries import with_retries

OPEN_FILES = 64  # maximum number of shards that a reader keeps open
# Maximum gap between two frames, in bytes, that is read with them instead of sending a second request: a request to a
# store takes about 10 to 30 ms, and in this time a connection transfers about half a megabyte.
GAP_BYTES = 512 << 10


OpenFile = TypeVar("OpenFile")


class CorruptFrame(UserError):
    """The bytes of a frame differ from those that were written."""


class ClipReader:
    """Reads frames of one stream. Thread-safe.

    bytes_read: bytes read so far, including the gaps between frames. bytes_used: bytes of the frames read so far."""

    def __init__(self, index: Index):
        """The shards of a remote dataset come from the cache of the index, if it has one."""
        self.index = index
        self.bytes_read = 0
        self.bytes_used = 0
        self._storage = index.storage
        self._cache = index.cache
        self._names: dict[str, str] = {}  # path of a shard -> its file name in the cache
        self._files: OrderedDict[str, _LocalFile | pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, row: int, numbers: np.ndarray) -> list[np.ndarray]:
        """Return the encoded JPEGs (uint8, one array per frame) of the frames with these numbers of the video in a row.

        Raises CorruptFrame, which names key, shard and byte; DamagedFile if the index is damaged; UserError if the
        shard is missing; and StoreError if the store refuses the request or stays unreachable."""
        distinct, order = np.unique(numbers, return_inverse=True)
        where = self.index.frames(row, distinct)
        if (where.start[1:] < where.end[:-1]).any():
            raise self.index.damaged(row)
        if self._storage.local:
            frames = self._read_file(self._local_file(where.shard), where)
            damaged = _first_damaged(frames, where)
        else:
            frames, damaged = self._read_remote(row, where)
        if damaged is not None:
            place = f"{self._storage.display(where.shard)}, from byte {where.start[damaged]}"
            raise CorruptFrame(
                f"frame {distinct[damaged]} of {self.index.key(row)} is damaged ({place}): delete this shard and rerun "
                "`lgd preprocess` to recreate it"
            )
        with self._lock:
            self.bytes_used += sum(map(len, frames))
        return [frames[i] for i in order]

    def _read_remote(self, row: int, where: FrameBytes) -> tuple[list[np.ndarray], int | None]:
        """Return the frames, from the cache if possible, and the position of the first one that is damaged in the
        store."""
        cached = None
        if self._cache:
            name = self._cache_name(row, where.shard)
            file = self._cached_file(name)
            if file is None:
                self._cache.request(self._storage, where.shard, name)
            else:
                cached = self._read_file(file, where)
                if _first_damaged(cached, where) is None:
                    return cached, None
        frames = self._read_ranges(where, GAP_BYTES, lambda first, size: self._read_store(where.shard, first, size))
        if self._cache and cached and not all(map(np.array_equal, cached, frames)):
            self._cache.drop(name)
            with self._lock:
                self._files.pop(name, None)
        return frames, _first_damaged(frames, where)

    def _read_file(self, file: "_LocalFile", where: FrameBytes) -> list[np.ndarray]:
        # No more than there is: a damaged index may name positions far beyond the end.
        end = os.fstat(file.handle).st_size
        return self._read_ranges(
            where, 0, lambda first, size: os.pread(file.handle, max(min(size, end - first), 0), first)
        )

    def _read_ranges(self, where: FrameBytes, max_gap: int, read: Callable[[int, int], bytes]) -> list[np.ndarray]:
        """Return the frames. read: (first byte, number of bytes) -> bytes. Frames with at most `max_gap` bytes between
        them are read together."""
        cuts = np.flatnonzero(where.start[1:] - where.end[:-1] > max_gap) + 1
        starts, ends = where.start.tolist(), where.end.tolist()
        frames: list[np.ndarray] = []
        total = 0
        for begin, stop in pairwise([0, *cuts.tolist(), len(starts)]):
            first = starts[begin]
            content = np.frombuffer(read(first, ends[stop - 1] - first), np.uint8)
            total += len(content)
            frames += [content[starts[i] - first : ends[i] - first] for i in range(begin, stop)]
        with self._lock:
            self.bytes_read += total
        return frames

    def _read_store(self, shard: str, first: int, size: int) -> bytes:
        """Return bytes of a shard in the store, with retries. The shard stays open, because opening an object costs one
        more request."""

        def read() -> bytes:
            path = self._storage.path(shard)
            content: bytes = self._opened(shard, lambda: self._storage.fs.open_input_file(path)).read_at(size, first)
            return content

        try:
            return with_retries(self._storage.display(shard), read)
        except FileNotFoundError as error:
            raise self._missing(shard) from error

    def _local_file(self, shard: str) -> "_LocalFile":
        def open_() -> _LocalFile:
            check_file(self._storage.path(shard), self._storage.display(shard))
            return _LocalFile(os.open(self._storage.path(shard), os.O_RDONLY | os.O_CLOEXEC))

        try:
            return self._opened(shard, open_)
        except FileNotFoundError as error:
            raise self._missing(shard) from error

    def _cache_name(self, row: int, shard: str) -> str:
        """Return the file name of a row's shard in the cache: only a shard with the same frames has this name."""
        if shard not in self._names:
            stem = shard.removesuffix(".tar").replace("/", "-")
            self._names[shard] = f"{stem}-{self.index.shard_identity(row)}.tar"
        return self._names[shard]

    def _cached_file(self, name: str) -> "_LocalFile | None":
        """Return the copy of a shard in the cache; None if it is not in the cache."""
        assert self._cache
        cache = self._cache

        def open_() -> _LocalFile | None:
            handle = cache.open(name)
            return None if handle is None else _LocalFile(handle)

        file = self._opened(name, open_)
        if file and time.monotonic() > file.touched + TOUCH_S:
            file.touched = time.monotonic()
            cache.touch(file.handle)
        return file

    def _opened(self, name: str, open_: Callable[[], OpenFile]) -> OpenFile:
        """Return the open file of this name; open it if it is not open yet."""
        with self._lock:
            known = self._files.pop(name, None)
            if known is not None:
                self._files[name] = known
                return cast(OpenFile, known)
        file = open_()  # without the lock: a store may be slow
        if file is not None:
            with self._lock:
                self._files[name] = file
                if len(self._files) > OPEN_FILES:
                    self._files.popitem(last=False)
        return file

    def _missing(self, shard: str) -> UserError:
        return UserError(f"{self._storage.display(shard)} is missing: rerun `lgd preprocess` to recreate it")


class _LocalFile:
    """An open local file, closed when its last reader drops it."""

    def __init__(self, handle: int):
        self.handle = handle
        self.touched = -TOUCH_S  # monotonic seconds; see ShardCache.touch

    def __del__(self) -> None:
        os.close(self.handle)


def _first_damaged(frames: Sequence[np.ndarray], where: FrameBytes) -> int | None:
    """Return the position of the first frame whose length or CRC-32 differs from the index; None if all are equal."""
    sizes = (where.end - where.start).tolist()
    for i, (frame, size, crc32) in enumerate(zip(frames, sizes, where.crc32.tolist(), strict=True)):
        if len(frame) != size or zlib.crc32(frame.data) != crc32:
            return i
    return None


Plan = TypeVar("Plan")
Read = TypeVar("Read")


def read_ahead(
    plans: Iterable[tuple[Plan, Sequence[tuple[int, np.ndarray]]]],
    read: Callable[[int, np.ndarray], Read],
    threads: int,
    *,
    depth: int,
) -> Generator[tuple[Plan, list[Read]]]:
    """Read the clips of each plan, (plan, [(row, frame numbers), ...]), `depth` plans in advance.

    Yields (plan, the result of `read` for each clip) in the order of the plans."""
    with ThreadPoolExecutor(threads, thread_name_prefix="clip-reader") as pool:
        waiting: list[tuple[Plan, list[Future[Read]]]] = []
        try:
            for plan, clips in plans:
                waiting.append((plan, [pool.submit(read, row, numbers) for row, numbers in clips]))
                if len(waiting) > depth:
                    ready, futures = waiting.pop(0)
                    yield ready, [future.result() for future in futures]
            while waiting:
                ready, futures = waiting.pop(0)
                yield ready, [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)
