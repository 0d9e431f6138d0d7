"""A local cache of the shards of a remote dataset, shared by the workers of a machine and by later runs.

A clip that is not in the cache is read from the object store at once, while one thread per process fetches its shard in
the background. The clips of a shuffled epoch come from all shards: otherwise each clip of the first batches would wait
for a complete shard. The bytes of a clip do not depend on what is in the cache.

The name of a file in the cache contains a hash of its content or origin, so that different datasets, specs and
recreated shards never share a file. While a file is fetched it has a temporary name, its full size is reserved, and it
is locked until the process that fetches it ends: a temporary file that is not locked belongs to a killed process. A
file that is removed stays readable for processes that have it open.
"""

import atexit
import contextlib
import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import pyarrow as pa
from tyro.conf import arg

from lgd.pipeline.console.errors import StoreError, UsageError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.retries import reason
from lgd.pipeline.storage.storage import BLOCK_BYTES, TEMPORARY, Storage, disk_errors

# A shard used this recently is not removed to free space for another one. When a dataset is larger than its cache, all
# of its shards are equally likely to be needed next: replacing them would fetch a complete shard for every clip.
KEEP_S = 600.0
TOUCH_S = 60.0  # precision of the time when a file was last used
MAX_QUEUED = 64  # shards that wait to be fetched; requests beyond them are dropped, and repeated by later clips
LOCK = ".lock"  # held while files are counted and removed
# Names of files of a cache; other files in its folder are not touched.
CACHE_FILE = re.compile(rf"({re.escape(TEMPORARY)})?[\w.-]+-[0-9a-f]{{32}}\.(tar|arrow)")

Result = TypeVar("Result")


@dataclass(frozen=True)
class CacheFolder:
    """A folder of complete files.

    max_bytes: their maximum total size. keep_s: see KEEP_S."""

    path: str
    max_bytes: int
    keep_s: float = KEEP_S

    def file(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return f"{self.path}/{name}"


@dataclass(frozen=True)
class CacheConfig:
    """The shard cache of each machine."""

    cache: Annotated[str | None, arg(metavar="DIR")] = None
    """Local folder on each machine that keeps shards of a dataset in an object store, for this and later runs.
    Default: no cache; every clip is read from the object store."""
    cache_gb: float = 100.0
    """Maximum size of that folder, GB. The least recently used shards are removed."""

    def __post_init__(self) -> None:
        if self.cache_gb <= 0:
            raise UsageError(f"--cache-gb must be more than 0, not {self.cache_gb:g}")
        if self.cache is not None:  # the workers run in different folders
            object.__setattr__(self, "cache", os.path.abspath(os.path.expanduser(self.cache)))


class ShardCache:
    """The cache as one process uses it. Thread-safe. Close it after use; it is also closed when the process ends."""

    def __init__(self, folder: str | Path, max_bytes: int, keep_s: float = KEEP_S):
        """Create the folder, and remove temporary files of killed processes and files beyond `max_bytes`.

        Raises UserError if the folder cannot be created."""
        self.folder = CacheFolder(os.path.abspath(os.path.expanduser(folder)), max_bytes, keep_s)
        self._lock = threading.Lock()
        self._queue: dict[str, tuple[Storage, str]] = {}  # by name in the cache; the first one is being fetched
        self._too_large: set[str] = set()
        self._full_until = 0.0  # on the monotonic clock
        self._disk_failed = False  # files in the cache are still used
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        with disk_errors(self.folder.path):
            os.makedirs(self.folder.path, exist_ok=True)
        with self._disk_errors(), _locked(self.folder.file(LOCK), wait=True):
            free_space(self.folder, 0)

    def open(self, name: str) -> int | None:
        """Open a file of the cache for reading: a file descriptor, which the caller closes, or None if the file is
        missing."""
        try:
            return os.open(self.folder.file(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def touch(self, handle: int) -> None:
        """Record that an open file is in use. handle: its file descriptor."""
        with contextlib.suppress(PermissionError):  # a file of a different user, whose own workers record it
            os.utime(handle)

    def drop(self, name: str) -> None:
        """Remove a damaged file."""
        say(f"{self.folder.file(name)} was damaged; it is fetched again")
        with contextlib.suppress(FileNotFoundError):  # another worker removed it
            os.unlink(self.folder.file(name))

    def request(self, storage: Storage, shard: str, name: str) -> None:
        """Fetch a shard in the background under `name` in the cache, unless there is no space for it. Returns at once.

        shard: path in `storage`."""
        with self._lock:
            if (
                self._disk_failed
                or self._closing.is_set()
                or name in self._queue
                or name in self._too_large
                or len(self._queue) >= MAX_QUEUED
                or time.monotonic() < self._full_until
            ):
                return
            self._queue[name] = storage, shard
            if self._thread is None:
                atexit.register(self.close)  # Python would stop a daemon thread in the middle of a system call
                self._thread = threading.Thread(target=self._fetch_all, name="shard-cache", daemon=True)
                self._thread.start()

    def map(self, storage: Storage, name: str, fingerprint: str) -> pa.NativeFile | None:
        """Return a memory-mapped copy of a remote file of a dataset, fetched first if it is not in the cache; None if
        there is no space for it. fingerprint: of the dataset.

        Raises StoreError if the object store is unreachable or rejects the request."""
        stamp = f"{storage.display(name)} {fingerprint} {storage.stamp(name)}"
        stem, _, suffix = name.replace("/", "-").rpartition(".")
        copy = f"{stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:32]}.{suffix}"
        file = self.folder.file(copy)
        if not os.path.exists(file) and not self._disk_failed:
            size = storage.size(name)
            if size is None:
                raise FileNotFoundError(storage.display(name))
            with self._disk_errors():
                put(self.folder, copy, size, blocks=storage.blocks(name), wait=True)
        try:
            os.utime(file)
            return pa.memory_map(file)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Stop the background thread, and cancel what it is fetching."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        if thread:
            thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> "ShardCache":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fetch_all(self) -> None:
        while True:
            with self._lock:
                if self._closing.is_set() or self._disk_failed or not self._queue:
                    self._queue.clear()
                    self._thread = None
                    return
                name, (storage, shard) = next(iter(self._queue.items()))
            # Errors of the store are not retried here: the reader of the shard meets the same error, retries, reports
            # it, and requests the shard again. Waiting here would only delay `close`.
            with contextlib.suppress(StoreError, _Closed), self._disk_errors():
                self._fetch(storage, shard, name)
            with self._lock:
                del self._queue[name]

    def _fetch(self, storage: Storage, shard: str, name: str) -> None:
        with _once(lambda: storage.fs.open_input_file(storage.path(shard))) as file:
            size = _once(file.size)
            if size > self.folder.max_bytes:
                self._too_large.add(name)
            elif not put(self.folder, name, size, blocks=self._blocks(file, size), wait=False):
                self._full_until = time.monotonic() + self.folder.keep_s / 10

    def _blocks(self, file: pa.NativeFile, size: int) -> Iterator[bytes]:
        for start in range(0, size, BLOCK_BYTES):
            if self._closing.is_set():
                raise _Closed
            yield _once(lambda start=start: file.read_at(BLOCK_BYTES, start))  # type: ignore[misc]

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Report an error of the disk in one line, once; from then on this process writes nothing to the cache."""
        try:
            yield
        except OSError as error:
            with self._lock:
                reported, self._disk_failed = self._disk_failed, True
            if not reported:
                say(
                    f"cannot write to the cache {self.folder.path} ({error.strerror}): shards that are not in it are "
                    "read from the object store; free some space, or set a smaller --cache-gb"
                )


@contextmanager
def opened_cache(cache_config: CacheConfig) -> Iterator[ShardCache | None]:
    """Yield the cache of this configuration, or None if it has none; closed at the end of the block."""
    if cache_config.cache is None:
        yield None
        return
    with ShardCache(cache_config.cache, int(cache_config.cache_gb * 1e9)) as cache:
        yield cache


class _Closed(Exception):
    """Raised in the background thread when the cache is closed."""


def _once(do: Callable[[], Result]) -> Result:
    """Return the result of a request to an object store without retries. Raises StoreError for all its errors."""
    try:
        return do()
    except OSError as error:
        raise StoreError(reason(error)) from error


def put(folder: CacheFolder, name: str, size: int, *, blocks: Iterator[bytes], wait: bool) -> bool:
    """Write a file of `size` bytes atomically, after removing least recently used files if there is no space for it.

    wait: wait for a process that is already writing it, instead of leaving the file to that process. Returns whether
    there was space (or another process is writing it). Raises OSError for errors of the disk, and errors of
    `blocks`."""
    if size > folder.max_bytes:
        return False
    final, temporary = folder.file(name), folder.file(TEMPORARY + name)
    with _locked(temporary, wait) as handle:
        if handle is None:
            return True
        try:
            exists = os.path.exists(final)
            if not exists and _reserve(folder, handle, size):
                written = 0
                for block in blocks:
                    written += os.pwrite(handle, block, written)
                if written != size:
                    raise StoreError(f"{name} changed while it was fetched")
                os.fsync(handle)
                os.rename(temporary, final)
                return True
            os.unlink(temporary)
            return exists
        except BaseException:
            os.unlink(temporary)
            raise


def _reserve(folder: CacheFolder, handle: int, size: int) -> bool:
    """Allocate all bytes of a file, so that other processes count them and a full disk is detected before the bytes are
    fetched. Returns False if there is no space for them."""
    os.ftruncate(handle, 0)  # bytes that a killed process wrote
    with _locked(folder.file(LOCK), wait=True):
        fits = free_space(folder, size)
        if fits and size:
            os.posix_fallocate(handle, 0, size)
    return fits


def free_space(folder: CacheFolder, size: int) -> bool:
    """Remove temporary files of killed processes, and least recently used files until `size` more bytes fit. Returns
    whether they fit. The caller holds the lock of the folder."""
    now, total = time.time(), 0
    complete: list[tuple[float, str, int]] = []
    for entry in os.scandir(folder.path):
        if not CACHE_FILE.fullmatch(entry.name):
            continue
        with contextlib.suppress(FileNotFoundError):  # renamed or removed since it was listed
            stat = entry.stat()
            if not entry.name.startswith(TEMPORARY):
                complete.append((stat.st_mtime, entry.path, stat.st_size))
            elif _remove_abandoned(entry.path):
                continue
            total += stat.st_size
    for last_used, path, file_size in sorted(complete):
        if total + size <= folder.max_bytes or (total <= folder.max_bytes and now - last_used < folder.keep_s):
            break
        with contextlib.suppress(FileNotFoundError):  # removed by `drop`
            os.unlink(path)
        total -= file_size
    return total + size <= folder.max_bytes


def _remove_abandoned(path: str) -> bool:
    """Remove a temporary file unless a process is writing it. Returns whether it was removed."""
    with _locked(path, wait=False) as handle:
        if handle is not None:
            os.unlink(path)
        return handle is not None


@contextmanager
def _locked(path: str, wait: bool) -> Iterator[int | None]:
    """Yield the descriptor of a file that this process has locked; the file is created if it is missing. Yields None if
    another process has locked it and `wait` is False."""
    handle = _open_locked(path, wait)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)  # releases the lock


def _open_locked(path: str, wait: bool) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        # The process that held the lock may have removed or renamed the file.
        if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
        os.close(handle)
