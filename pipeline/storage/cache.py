"""A local cache of a remote dataset's shards, which the workers of a machine share and later runs find again.

A clip that is not in the cache yet is read from the store at once; its shard is fetched in the background meanwhile, by
one thread a process. The clips of a shuffled epoch come from all shards: the first batches would otherwise wait for one
whole shard a clip. Whatever the cache holds, the bytes of a clip are the same.

A file of the cache is named after what must be in it, so that datasets, recipes and shards that were made anew never
meet. While it is being fetched it has another name, all the room it will take, and a lock that ends with the process
that fetches it: a file whose lock can be taken was left behind by a kill. A file that is removed stays readable for
those who have it open.
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

# A shard used this recently is not removed to make room for another. When a dataset is larger than its cache all of
# its shards are equally likely to be needed next: to exchange them would cost a whole shard for every clip.
KEEP_S = 600.0
TOUCH_S = 60.0  # how exactly it is known when a file was last used
WAITING = 64  # shards that wait to be fetched, at most; what is asked for beyond them will be asked for again
LOCK = ".lock"  # held while files are counted and removed
OURS = re.compile(rf"({re.escape(TEMPORARY)})?[\w.-]+-[0-9a-f]{{32}}\.(tar|arrow)")  # others' files are left alone

Result = TypeVar("Result")


@dataclass(frozen=True)
class CacheFolder:
    """A folder of whole files, at most `most_bytes` in all. keep_s: see KEEP_S."""

    path: str
    max_bytes: int
    keep_s: float = KEEP_S

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"


@dataclass(frozen=True)
class CacheConfig:
    """Where a machine keeps shards of remote datasets."""

    cache: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder on each worker's machine that keeps shards of a dataset on an object store, for this and later runs.
    Without one every clip is read from the store."""
    cache_gb: float = 100.0
    """Size of that folder, GB. What has not been used for longest is removed."""

    def __post_init__(self) -> None:
        if self.cache_gb <= 0:
            raise UsageError(f"--cache-gb must be more than 0, not {self.cache_gb:g}")
        if self.cache is not None:  # the workers run in other folders
            object.__setattr__(self, "cache", os.path.abspath(self.cache))


class ShardCache:
    """The cache as one process uses it. Thread-safe. To be closed, at the latest at the end of the process."""

    def __init__(self, folder: str | Path, max_bytes: int, keep_s: float = KEEP_S):
        """Makes the folder, removes what killed processes left in it, and what is more than `most_bytes`.

        Raises UserError for a folder that cannot be made."""
        self.folder = CacheFolder(os.path.abspath(folder), max_bytes, keep_s)
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Storage, str]] = {}  # by name in the cache; the first one is being fetched
        self._too_large: set[str] = set()
        self._full_until = 0.0  # on the monotonic clock
        self._failed = False  # the disk did; files that are there are still used
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        with disk_errors(self.folder.path):
            os.makedirs(self.folder.path, exist_ok=True)
        with self._disk_faults(), _locked(self.folder.file(LOCK), wait=True):
            make_room(self.folder, 0)

    def open(self, name: str) -> int | None:
        """A handle for reading a file of the cache, which the caller closes; None if it is not there."""
        try:
            return os.open(self.folder.file(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def touch(self, handle: int) -> None:
        """Notes that a file is in use."""
        with contextlib.suppress(PermissionError):  # another user's, whose own workers note it
            os.utime(handle)

    def drop(self, name: str) -> None:
        """Removes a file that turned out to be damaged."""
        say(f"{self.folder.file(name)} was damaged; it is fetched again")
        with contextlib.suppress(FileNotFoundError):  # another worker found it out too
            os.unlink(self.folder.file(name))

    def request(self, storage: Storage, shard: str, name: str) -> None:
        """Has a shard fetched in the background, to be `name` in the cache, unless there is no room for it. Returns at
        once."""
        with self._lock:
            if (
                self._failed
                or self._closing.is_set()
                or name in self._waiting
                or name in self._too_large
                or len(self._waiting) >= WAITING
                or time.monotonic() < self._full_until
            ):
                return
            self._waiting[name] = storage, shard
            if self._thread is None:
                atexit.register(self.close)  # Python would end a daemon thread in the middle of a system call
                self._thread = threading.Thread(target=self._fetch_all, name="shard-cache", daemon=True)
                self._thread.start()

    def mapped(self, storage: Storage, name: str, fingerprint: str) -> pa.NativeFile | None:
        """A remote file of a dataset as a memory-mapped copy in the cache, fetched now if it is not there; None if
        there is no room for it. fingerprint: of the dataset.

        Raises StoreError when the store does not answer or refuses."""
        stamp = f"{storage.display(name)} {fingerprint} {storage.stamp(name)}"
        stem, _, suffix = name.replace("/", "-").rpartition(".")
        copy = f"{stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:32]}.{suffix}"
        file = self.folder.file(copy)
        if not os.path.exists(file) and not self._failed:
            size = storage.size(name)
            if size is None:
                raise FileNotFoundError(storage.display(name))
            with self._disk_faults():
                put(self.folder, copy, size, blocks=storage.blocks(name), wait=True)
        try:
            os.utime(file)
            return pa.memory_map(file)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Ends the background thread, which gives up what it is fetching."""
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
                if self._closing.is_set() or self._failed or not self._waiting:
                    self._waiting.clear()
                    self._thread = None
                    return
                name, (storage, shard) = next(iter(self._waiting.items()))
            # A store that falters: whoever needs the shard meets the same fault, waits for it or says so, and asks for
            # the shard again. Waiting here as well would only keep `close` from ending.
            with contextlib.suppress(StoreError, _Closed), self._disk_faults():
                self._fetch(storage, shard, name)
            with self._lock:
                del self._waiting[name]

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
    def _disk_faults(self) -> Iterator[None]:
        """A disk that is full or fails: one line, said once; from then on this process puts nothing into the cache."""
        try:
            yield
        except OSError as error:
            with self._lock:
                failed, self._failed = self._failed, True
            if not failed:
                say(
                    f"cannot write to the cache {self.folder.path} ({error.strerror}): what is not in it is read from "
                    "the store; free some space, or give a smaller --cache-gb"
                )


@contextmanager
def opened_cache(cache_config: CacheConfig) -> Iterator[ShardCache | None]:
    """The cache that is asked for, closed in the end; None if none is."""
    if cache_config.cache is None:
        yield None
        return
    with ShardCache(cache_config.cache, int(cache_config.cache_gb * 1e9)) as cache:
        yield cache


class _Closed(Exception):
    """The cache is being closed."""


def _once(do: Callable[[], Result]) -> Result:
    """A request to a store, which is not repeated. Raises StoreError for whatever becomes of it."""
    try:
        return do()
    except OSError as error:
        raise StoreError(reason(error)) from error


def put(folder: CacheFolder, name: str, size: int, *, blocks: Iterator[bytes], wait: bool) -> bool:
    """Writes a file of `size` bytes; the least recently used ones make room for it. It appears whole or not at all.

    wait: for another process that is writing it, instead of leaving it to that one. Returns whether there was room
    (or another process is at it). Raises OSError for faults of the disk, and what `blocks` raises."""
    if size > folder.max_bytes:
        return False
    final, aside = folder.file(name), folder.file(TEMPORARY + name)
    with _locked(aside, wait) as handle:
        if handle is None:
            return True
        try:
            there = os.path.exists(final)
            if not there and _reserve(folder, handle, size):
                written = 0
                for block in blocks:
                    written += os.pwrite(handle, block, written)
                if written != size:
                    raise StoreError(f"{name} changed while it was fetched")
                os.fsync(handle)
                os.rename(aside, final)
                return True
            os.unlink(aside)
            return there
        except BaseException:
            os.unlink(aside)
            raise


def _reserve(folder: CacheFolder, handle: int, size: int) -> bool:
    """Gives a file all the bytes it will have, so that others count them and a full disk is known before the bytes
    are fetched; False if there is no room for them."""
    os.ftruncate(handle, 0)  # what a killed process left
    with _locked(folder.file(LOCK), wait=True):
        room = make_room(folder, size)
        if room and size:
            os.posix_fallocate(handle, 0, size)
    return room


def make_room(folder: CacheFolder, size: int) -> bool:
    """Removes what killed processes left, and the least recently used files until `size` more bytes fit; returns
    whether they do. To be called under the folder's lock."""
    now, total = time.time(), 0
    whole: list[tuple[float, str, int]] = []
    for entry in os.scandir(folder.path):
        if not OURS.fullmatch(entry.name):
            continue
        with contextlib.suppress(FileNotFoundError):  # renamed or dropped since it was listed
            stat = entry.stat()
            if not entry.name.startswith(TEMPORARY):
                whole.append((stat.st_mtime, entry.path, stat.st_size))
            elif _abandoned(entry.path):
                continue
            total += stat.st_size
    for used, path, freed in sorted(whole):
        if total + size <= folder.max_bytes or (total <= folder.max_bytes and now - used < folder.keep_s):
            break
        with contextlib.suppress(FileNotFoundError):  # dropped
            os.unlink(path)
        total -= freed
    return total + size <= folder.max_bytes


def _abandoned(path: str) -> bool:
    """Whether nobody was writing a file any more; then it is removed."""
    with _locked(path, wait=False) as handle:
        if handle is not None:
            os.unlink(path)
        return handle is not None


@contextmanager
def _locked(path: str, wait: bool) -> Iterator[int | None]:
    """A handle of a file, made if it is not there, that nobody else has locked; None where somebody has and `wait` is
    False."""
    handle = _open_locked(path, wait)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)  # and with it the lock


def _open_locked(path: str, wait: bool) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        # Whoever had it locked may have removed or renamed it meanwhile.
        if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
        os.close(handle)
