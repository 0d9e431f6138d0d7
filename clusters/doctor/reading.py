"""Reading a dataset on a node: that it is the same one, and how fast. Nothing is written."""

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.rows import ABSENT, NODE, OK, SLOW, WRONG, Row, attempt, number, speed

NAME = "data"
LIMIT_S = 3.0  # of each measurement
MAX_BYTES, BLOCK_BYTES, PIECE_BYTES = 256 << 20, 1 << 20, 64 << 10
REMOTE_BLOCK_BYTES, STREAMS = 8 << 20, 4
PIECES = 50  # random reads
LEAST_MBS, LEAST_BYTES = 20.0, 32 << 20
SLOW_LOCAL_S, SLOW_REMOTE_S = 0.05, 0.5  # of a listing or a small read
MOUNTS = Path("/proc/self/mountinfo")


def reading_rows(address: str, digest: str, shards: Sequence[tuple[str, int]], *, first: int) -> Iterator[Row]:
    """Yield the rows of a dataset. address: local path, or for pyarrow. digest: of its dataset.json where the command
    runs. shards: path in the dataset and bytes of each. first: number of the shard to begin with, different per node,
    so that not all nodes read the same bytes."""
    if "://" not in address and not os.path.isdir(address):
        yield Row(NODE, NAME, f"{address} does not exist on this node", WRONG, advice.DATA_MISSING)
        return
    first %= max(len(shards), 1)
    ordered = [*shards[first:], *shards[:first]]
    if "://" in address:
        yield from remote_rows(address, digest, ordered)
    else:
        yield from local_rows(address, digest, ordered)


def local_rows(folder: str, digest: str, shards: Sequence[tuple[str, int]]) -> Iterator[Row]:
    """A local folder or a network file system."""
    kind = file_system(folder, MOUNTS.read_text())

    def content() -> bytes:
        return (Path(folder) / "dataset.json").read_bytes()

    yield from attempt(NODE, NAME, lambda: same(content(), digest, kind), advice=advice.DATA_MISSING)
    yield from attempt(
        NODE, f"{NAME}, latency", lambda: latency(lambda: os.listdir(folder), content, limit_s=SLOW_LOCAL_S)
    )
    paths = [os.path.join(folder, name) for name, _ in shards]
    if not paths:
        yield Row(NODE, f"{NAME}, read", "no shards", OK)
        return
    yield from attempt(NODE, f"{NAME}, read", lambda: local_speed(paths, cold=True))
    yield from attempt(NODE, f"{NAME}, read cached", lambda: local_speed(paths, cold=False))
    yield from attempt(NODE, f"{NAME}, random 64 KiB", lambda: random_reads(paths[0]))


def remote_rows(address: str, digest: str, shards: Sequence[tuple[str, int]]) -> Iterator[Row]:
    """An object store."""
    import pyarrow.fs as pafs

    files: Any = pafs
    opened: list[Any] = []

    def content() -> bytes:
        if not opened:
            opened.extend(files.FileSystem.from_uri(address))
        system, base = opened
        with system.open_input_file(f"{base}/dataset.json") as file:
            return bytes(file.read())

    found = attempt(
        NODE, NAME, lambda: same(content(), digest, address.partition("://")[0]), advice=advice.DATA_MISSING
    )
    yield from found
    if not opened or found[0].verdict != OK:
        return
    system, base = opened

    def listing() -> object:
        return system.get_file_info(files.FileSelector(base))

    yield from attempt(NODE, f"{NAME}, latency", lambda: latency(listing, content, limit_s=SLOW_REMOTE_S))
    yield from attempt(NODE, f"{NAME}, read", lambda: remote_speed(system, base, shards))


def same(content: bytes, digest: str, kind: str) -> Row:
    """Whether this is the dataset that the command sees."""
    own = hashlib.sha256(content).hexdigest()
    if own != digest:
        return Row(
            NODE,
            NAME,
            f"its dataset.json is another one than where the command runs ({kind})",
            WRONG,
            advice.DATA_DIFFERENT,
        )
    return Row(NODE, NAME, f"the same dataset.json ({kind})")


def file_system(path: str, mounts: str) -> str:
    """Return the type of the file system of a path, such as ext4 or nfs4. mounts: content of /proc/self/mountinfo."""
    path, best, kind = os.path.realpath(path), "", "unknown file system"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")  # a blank is \040
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of those at the same point, the last one counts
            best, kind = point, after.split(" ")[0]
    return kind


def latency(listing: Callable[[], object], content: Callable[[], bytes], *, limit_s: float) -> Row:
    """Median time of a listing of the folder and of reading dataset.json, whose first reads are not counted."""
    times = [_median_s(listing), _median_s(content)]
    slow = max(times) > limit_s
    figure = f"list {_ms(times[0])}, get {_ms(times[1])} (put is not tested)"
    todo = advice.DATA_SLOW if slow else ""
    return Row(NODE, f"{NAME}, latency", figure, SLOW if slow else OK, todo, max(times) * 1e3, "ms")


def _median_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _ms(seconds: float) -> str:
    return f"{number(seconds * 1e3)} ms"


def local_speed(paths: Sequence[str], *, cold: bool) -> Row:
    """Speed of reading shards from the start. cold: the copies in this node's memory are dropped before; a file server
    may still have them in its own."""
    done, start = 0, time.perf_counter()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            if cold:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            offset = 0
            while block := os.pread(handle, BLOCK_BYTES, offset):
                offset += len(block)
                done += len(block)
                if done >= MAX_BYTES or time.perf_counter() - start > LIMIT_S:
                    break
        finally:
            os.close(handle)
        if done >= MAX_BYTES or time.perf_counter() - start > LIMIT_S:
            break
    return read_row(f"{NAME}, read" if cold else f"{NAME}, read cached", done, time.perf_counter() - start)


def read_row(name: str, done: int, seconds: float, *, how: str = "") -> Row:
    """Return the row of `done` bytes read in some seconds."""
    if done < LEAST_BYTES and seconds < LIMIT_S:
        return Row(NODE, name, f"the {done / 1e6:.0f} MB of the shards are too little for a measurement", ABSENT)
    row = speed(NODE, name, done / seconds / 1e6, unit="MB/s", least=LEAST_MBS, advice=advice.DATA_SLOW)
    return row._replace(figure=f"{row.figure} ({done / 1e6:.0f} MB{how})")


def random_reads(path: str) -> Row:
    """Median time of reads at random places, as the loader reads clips, without this node's copy in memory."""
    name = f"{NAME}, random 64 KiB"
    size, times = os.path.getsize(path), []
    if size < PIECES * PIECE_BYTES:  # most places would be read before
        return Row(NODE, name, "the shards are too small for a measurement", ABSENT)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        for place in range(PIECES):
            # Places that jump through the file and do not repeat: multiples of the golden ratio.
            offset = int(place * 0.6180339887 % 1 * max(size - PIECE_BYTES, 0))
            start = time.perf_counter()
            os.pread(handle, PIECE_BYTES, offset)
            times.append(time.perf_counter() - start)
    finally:
        os.close(handle)
    median = statistics.median(times)
    slow = median > SLOW_LOCAL_S
    todo = advice.DATA_SLOW if slow else ""
    return Row(NODE, name, f"{_ms(median)} (median)", SLOW if slow else OK, todo, median * 1e3, "ms")


def remote_speed(system: Any, base: str, shards: Sequence[tuple[str, int]]) -> Row:
    """Speed of ranged reads of shards, several at a time."""
    pieces = [
        (name, offset, min(REMOTE_BLOCK_BYTES, size - offset))
        for name, size in shards
        for offset in range(0, size, REMOTE_BLOCK_BYTES)
    ][: MAX_BYTES // REMOTE_BLOCK_BYTES]
    if not pieces:
        return Row(NODE, f"{NAME}, read", "no shards", OK)
    start = time.perf_counter()

    def read(piece: tuple[str, int, int]) -> int:
        name, offset, length = piece
        if time.perf_counter() - start > LIMIT_S:
            return 0
        with system.open_input_file(f"{base}/{name}") as file:
            return len(file.read_at(length, offset))

    with ThreadPoolExecutor(STREAMS) as threads:
        done = sum(threads.map(read, pieces))
    return read_row(f"{NAME}, read", done, time.perf_counter() - start, how=f", {STREAMS} reads at a time")
