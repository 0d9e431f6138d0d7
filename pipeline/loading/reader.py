"""The bytes of a clip: ranged reads from the shards, each frame checked against its CRC-32, by a pool of threads.

From a local folder, or a shard's copy in the cache, a clip costs exactly the bytes of its frames. From an object store
frames that lie near each other are read in one request.
"""

import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index import FrameBytes, Index
from lgd.pipeline.storage.cache import TOUCH_S
from lgd.pipeline.storage.retries import with_retries

OPEN_FILES = 64  # shards that a reader keeps open at once
# Bytes between two frames that are read along with them rather than left out by a second request: a store takes some
# 10 to 30 ms to answer, in which a connection carries about half a megabyte.
GAP_BYTES = 512 << 10


class CorruptFrame(UserError):
    """A frame's bytes are not those that were written."""


class ClipReader:
    """Reads frames of one stream. Thread-safe.

    bytes_read and bytes_used are counted, so that their ratio can be looked at."""

    def __init__(self, index: Index):
        """The shards of a remote dataset come from the cache of the index, if it has one."""
        self.index = index
        self.bytes_read = 0
        self.bytes_used = 0
        self._storage = index.storage
        self._cache = index.cache
        self._names: dict[str, str] = {}  # of the shards in the cache
        self._files: OrderedDict[str, _LocalFile | pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, row: int, numbers: np.ndarray) -> list[np.ndarray]:
        """The encoded JPEGs (uint8, one array a frame) of the frames with these numbers of the video in a row.

        Raises CorruptFrame, which names key, shard and byte; UserError when the shard is gone; and StoreError when the
        store does not answer for long, or refuses."""
        distinct, back = np.unique(numbers, return_inverse=True)
        where = self.index.frames(row, distinct)
        if self._storage.local:
            frames = self._from_file(self._local(where.shard), where)
            wrong = _first_wrong(frames, where)
        else:
            frames, wrong = self._from_store(row, where)
        if wrong is not None:
            raise CorruptFrame(
                f"frame {distinct[wrong]} of {self.index.key(row)} is damaged: {self._storage.display(where.shard)} from "
                f"byte {where.start[wrong]} on; delete that shard and run `lgd preprocess` again"
            )
        with self._lock:
            self.bytes_used += sum(map(len, frames))
        return [frames[i] for i in back]

    def _from_store(self, row: int, where: FrameBytes) -> tuple[list[np.ndarray], int | None]:
        """The frames, by way of the cache if there is one, and the first of them that is damaged in the store."""
        copied = None
        if self._cache:
            name = self._name(row, where.shard)
            copy = self._copy(name)
            if copy is None:
                self._cache.request(self._storage, where.shard, name)
            else:
                copied = self._from_file(copy, where)
                if _first_wrong(copied, where) is None:
                    return copied, None
        frames = self._read(where, GAP_BYTES, lambda first, size: self._range(where.shard, first, size))
        if self._cache and copied and not all(map(np.array_equal, copied, frames)):
            self._cache.drop(name)
            with self._lock:
                self._files.pop(name, None)
        return frames, _first_wrong(frames, where)

    def _from_file(self, file: "_LocalFile", where: FrameBytes) -> list[np.ndarray]:
        return self._read(where, 0, lambda first, size: os.pread(file.handle, size, first))

    def _read(self, where: FrameBytes, gap: int, read: Callable[[int, int], bytes]) -> list[np.ndarray]:
        """read: (first byte, how many) -> bytes; frames at most `gap` bytes apart are read in one go."""
        cuts = np.flatnonzero(where.start[1:] - where.end[:-1] > gap) + 1
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

    def _range(self, shard: str, first: int, size: int) -> bytes:
        """Bytes of a shard in the store, which is tried again while it falters. Kept open, because to open an object
        is a request of its own."""

        def read() -> bytes:
            path = self._storage.path(shard)
            return self._opened(shard, lambda: self._storage.fs.open_input_file(path)).read_at(size, first)

        try:
            return with_retries(self._storage.display(shard), read)
        except FileNotFoundError as error:
            raise self._gone(shard) from error

    def _local(self, shard: str) -> "_LocalFile":
        def open_() -> _LocalFile:
            return _LocalFile(os.open(self._storage.path(shard), os.O_RDONLY | os.O_CLOEXEC))

        try:
            return self._opened(shard, open_)
        except FileNotFoundError as error:
            raise self._gone(shard) from error

    def _name(self, row: int, shard: str) -> str:
        """What a row's shard is called in the cache: only a shard with the same frames has that name."""
        if shard not in self._names:
            stem = shard.removesuffix(".tar").replace("/", "-")
            self._names[shard] = f"{stem}-{self.index.shard_identity(row)}.tar"
        return self._names[shard]

    def _copy(self, name: str) -> "_LocalFile | None":
        """A shard's copy in the cache."""
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

    def _opened(self, name: str, open_: Callable[[], Any]) -> Any:
        """The open file of this name, opened if need be."""
        with self._lock:
            file = self._files.pop(name, None)
            if file is not None:
                self._files[name] = file
                return file
        file = open_()  # without the lock: a store may take its time
        if file is not None:
            with self._lock:
                self._files[name] = file
                if len(self._files) > OPEN_FILES:
                    self._files.popitem(last=False)
        return file

    def _gone(self, shard: str) -> UserError:
        return UserError(f"{self._storage.display(shard)} is gone: run `lgd preprocess` again to have it made anew")


class _LocalFile:
    """An open file of the disk, closed when its last reader lets go of it."""

    def __init__(self, handle: int):
        self.handle = handle
        self.touched = -TOUCH_S  # monotonic seconds; see ShardCache.touch

    def __del__(self) -> None:
        os.close(self.handle)


def _first_wrong(frames: Sequence[np.ndarray], where: FrameBytes) -> int | None:
    """The first frame whose bytes are not those of the index."""
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
    """Reads the clips of each plan, (plan, [(row, frame numbers), ...]), `depth` plans ahead of the one asked for.

    Yields (plan, what `read` gave for each clip) in the order of the plans."""
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
