"""The bytes of a clip: ranged reads from the shards, each frame checked against its CRC-32, by a pool of threads."""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.index import Index

OPEN_FILES = 64  # shards that a reader keeps open at once


class CorruptFrame(UserError):
    """A frame's bytes are not those that were written."""


class ClipReader:
    """Reads frames of one stream. Thread-safe.

    bytes_read and bytes_used are counted, so that their ratio can be looked at."""

    def __init__(self, index: Index):
        self.index = index
        self.bytes_read = 0
        self.bytes_used = 0
        self._files: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, row: int, numbers: np.ndarray) -> list[np.ndarray]:
        """The encoded JPEGs (uint8, one array a frame) of the frames with these numbers of the video in a row.

        Raises CorruptFrame, which names key, shard and byte, and UserError when the shard is gone."""
        distinct, back = np.unique(numbers, return_inverse=True)
        where = self.index.frames(row, distinct)
        # Frames that touch are read in one go.
        cuts = np.flatnonzero(where.start[1:] != where.end[:-1]) + 1
        frames: list[np.ndarray] = []
        for group in np.split(np.arange(len(distinct)), cuts):
            first, last = int(where.start[group[0]]), int(where.end[group[-1]])
            content = np.frombuffer(self._range(where.shard, first, last - first), np.uint8)
            for i in group:
                frame = content[where.start[i] - first : where.end[i] - first]
                if len(frame) != where.end[i] - where.start[i] or zlib.crc32(frame.data) != where.crc32[i]:
                    shard = self.index.storage.show(where.shard)
                    raise CorruptFrame(
                        f"frame {distinct[i]} of {self.index.key(row)} is damaged: {shard} from byte {where.start[i]} "
                        "on; delete that shard and run `lgd preprocess` again"
                    )
                frames.append(frame)
        self.bytes_used += int((where.end - where.start).sum())
        return [frames[i] for i in back]

    def _range(self, shard: str, offset: int, size: int) -> bytes:
        with self._lock:
            file = self._files.pop(shard, None)
            if file is None:
                try:
                    file = self.index.storage.open(shard)
                except FileNotFoundError as error:
                    raise UserError(
                        f"{self.index.storage.show(shard)} is gone: run `lgd preprocess` again to have it made anew"
                    ) from error
                if len(self._files) >= OPEN_FILES:
                    self._files.popitem(last=False)  # closed when its last reader lets go of it
            self._files[shard] = file
            self.bytes_read += size
        return file.read_at(size, offset)


Plan = TypeVar("Plan")
Read = TypeVar("Read")


def read_ahead(
    plans: Iterable[tuple[Plan, Sequence[tuple[int, np.ndarray]]]],
    read: Callable[[int, np.ndarray], Read],
    threads: int,
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
