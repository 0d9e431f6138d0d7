"""Where bytes live: one interface to a local folder or an object store (s3://, gs://), through pyarrow.fs.

Every write appears whole or not at all: local files are written aside, flushed to the disk and renamed; objects are
put in one piece from a local temporary file. What a faltering store refuses is tried again, see `store_faults`.
"""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.storage.retries import MISSING_BUCKET, with_retries

TEMPORARY = ".tmp-"  # prefix of files that are being written; left behind only by a kill, removed by the next run
BLOCK_BYTES = 8 << 20  # of a remote file that is read block by block
OBJECT_STORES = ("s3", "gcs")  # they have buckets and objects, and no folders
CONNECT_S = 3.0
SILENCE_S = 5.0  # without a byte from the store
QUICK_ATTEMPTS = 2  # that pyarrow makes by itself of each request; `persist` repeats them with time between

Result = TypeVar("Result")


class Storage:
    """A folder, local or remote. Paths given to its methods are relative to it, with forward slashes.

    Thread-safe. Every method raises StoreError for a remote store that does not answer or refuses; reading a file that
    is not there raises FileNotFoundError."""

    def __init__(self, root: str | Path):
        """root: a path, or an address as pyarrow takes it, such as s3://bucket/folder?region=eu-west-1.

        Raises UserError for an address that is none."""
        self.root = str(root)
        # As in messages: without the password that an address may hold.
        self._shown, self._query = re.sub(r"://[^/?]*@", "://", self.root), ""
        if "://" in self.root:
            self._shown, mark, query = self._shown.partition("?")
            self._query = mark + query
            try:
                self.fs, self.base = with_retries(self.display(), lambda: _connect(self.root))
            except pa.ArrowInvalid as error:
                raise UserError(
                    f"cannot open {self.display()}: {str(error).replace(self.root, self.display())}"
                ) from error
        else:
            self.fs, self.base = pafs.LocalFileSystem(), os.path.abspath(self.root)
        if not self.base:
            raise UserError(f"{self.display()} names no bucket: give one, such as s3://bucket/folder")
        self.local = isinstance(self.fs, pafs.LocalFileSystem)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        # Rebuilt on the other side, so that a cluster task opens its own connections.
        return Storage, (self.address,)

    @property
    def address(self) -> str:
        """What opens this storage again, whatever the working folder."""
        return self.root if "://" in self.root else self.base

    def path(self, name: str = "") -> str:
        """The path of `name` as `self.fs` takes it."""
        return f"{self.base}/{name}" if name else self.base

    def display(self, name: str = "") -> str:
        """The path or address of `name` as a user writes it."""
        return (f"{self._shown.rstrip('/')}/{name}" if name else self._shown) + self._query

    def exists(self, name: str = "") -> bool:
        """Raises StoreError when the storage itself is asked for and not even its bucket is there."""
        found = self._info(self.path(name), name).type != pafs.FileType.NotFound
        if not found and not name and self.fs.type_name in OBJECT_STORES:
            bucket = self._info(self.base.partition("/")[0])
            if bucket.type == pafs.FileType.NotFound:
                raise StoreError(f"{self.display()}: {MISSING_BUCKET}")
        return found

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if there is no such file."""
        info = self._info(self.path(name), name)
        return info.size if info.type == pafs.FileType.File else None

    def stamp(self, name: str) -> str:
        """Size and time of a file as text that is another one when the file has been replaced."""
        info = self._info(self.path(name), name)
        return f"{info.size} {info.mtime_ns}"

    def names(self, folder: str = "") -> list[str]:
        """Names of the files in a folder, sorted; empty if there is no such folder."""
        return sorted(info.base_name for info in self._list(folder, recursive=False))

    def list_all(self) -> list[str]:
        """Paths of all files at any depth, sorted: one listing."""
        above = len(self.base) + 1
        return sorted(info.path[above:] for info in self._list("", recursive=True))

    def open(self, name: str) -> pa.NativeFile:
        """A random-access file for reading. A read of it may still fault: see `read_range`."""
        return self._with_retries(name, lambda: self.fs.open_input_file(self.path(name)))

    def open_whole(self, name: str) -> pa.NativeFile:
        """A file for reading all of: a remote one is in memory already, so that no read of it faults."""
        return self.open(name) if self.local else pa.BufferReader(self.read(name))

    def map(self, name: str) -> pa.NativeFile:
        """A file for reading, memory-mapped; a remote one is copied to the temporary folder first, where it has no name
        and is gone with the last reader.

        Raises UserError when the temporary folder is full."""
        if self.local:
            return pa.memory_map(self.path(name))
        folder = tempfile.gettempdir()
        what = f"in {folder} (set TMPDIR for another folder), where a copy of {self.display(name)} is kept while it is open"
        with disk_errors(what), tempfile.NamedTemporaryFile(prefix=TEMPORARY) as file:
            for block in self.blocks(name):
                file.write(block)
            file.flush()
            return pa.memory_map(file.name)

    def read(self, name: str) -> bytes:
        def read() -> bytes:
            with self.fs.open_input_file(self.path(name)) as file:
                return file.read()

        return self._with_retries(name, read)

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes of a file from byte `start` on; fewer where it ends before."""

        def read() -> bytes:
            with self.fs.open_input_file(self.path(name)) as file:
                return file.read_at(length, start)

        return self._with_retries(name, read)

    def blocks(self, name: str) -> Iterator[bytes]:
        """A file in blocks of at most BLOCK_BYTES."""
        with self.open(name) as file:
            for start in range(0, file.size(), BLOCK_BYTES):
                yield self._with_retries(name, lambda start=start: file.read_at(BLOCK_BYTES, start))  # type: ignore[misc]

    def make_folder(self, folder: str = "") -> None:
        """Makes a folder and those above it. Object stores need none: they would only hold marks of it."""
        if self.fs.type_name not in OBJECT_STORES:
            try:
                with disk_errors(self.display(folder)):
                    self._with_retries(folder, lambda: self.fs.create_dir(self.path(folder), recursive=True))
            except FileNotFoundError as error:
                raise UserError(f"cannot make the folder {self.display(folder)}: choose another one") from error

    def delete(self, name: str) -> None:
        """Raises FileNotFoundError for a local file that is not there. A remote one may be gone: a deletion whose
        answer was lost is tried again."""
        with contextlib.nullcontext() if self.local else contextlib.suppress(FileNotFoundError):
            self._with_retries(name, lambda: self.fs.delete_file(self.path(name)))

    def clean(self, folder: str = "") -> None:
        """Removes what killed writers left behind in a folder."""
        for name in self.names(folder):
            if name.startswith(TEMPORARY):
                self.delete(f"{folder}/{name}" if folder else name)

    @contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file that appears under `name` when the block ends without an error, and not at all otherwise.

        Raises UserError when the disk is full or the folder cannot be written."""
        folder, _, base = name.rpartition("/")
        aside, what = self.path(folder), self.display(name)
        if not self.local:
            aside = tempfile.gettempdir()
            what = f"in {aside} (set TMPDIR for another folder), where {what} is written before it is sent"
        with disk_errors(what):
            handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{base}", dir=aside)
            try:
                with os.fdopen(handle, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                if self.local:
                    os.chmod(temporary, 0o644)
                    os.replace(temporary, self.path(name))
                    sync_folder(self.path(folder))
                else:
                    self._with_retries(name, lambda: self._put(temporary, name))
            finally:
                if os.path.exists(temporary):
                    os.unlink(temporary)

    def write(self, name: str, content: bytes) -> None:
        """Writes a whole file atomically."""
        with self.writer(name) as file:
            file.write(content)

    def _put(self, file: str, name: str) -> None:
        # pyarrow.fs.copy_files says nothing when a part of a large object could not be sent (pyarrow 26). And in one
        # write: a stream that an error leaves half written is still closed in the end, and half an object put.
        with pa.memory_map(file) as source:
            content = source.read_buffer()
            stream = self.fs.open_output_stream(self.path(name))
            stream.write(content)
            stream.close()

    def _with_retries(self, name: str, do: Callable[[], Result]) -> Result:
        return do() if self.local else with_retries(self.display(name), do)

    def _info(self, path: str, name: str = "") -> pafs.FileInfo:
        return self._with_retries(name, lambda: self.fs.get_file_info(path))

    def _list(self, folder: str, recursive: bool) -> list[pafs.FileInfo]:
        """The files in a folder; what marks a folder in an object store is none."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        infos = self._with_retries(folder, lambda: self.fs.get_file_info(selector))
        return [info for info in infos if info.type == pafs.FileType.File]


def _connect(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address, which fails within seconds, and the path in it.

    pyarrow takes no time-outs in an address; but what it pickles a file system as are the arguments to build it."""
    fs, path = pafs.FileSystem.from_uri(address)
    if fs.type_name == "s3":
        build, (options,) = fs.__reduce__()
        retries = pafs.AwsStandardS3RetryStrategy(QUICK_ATTEMPTS)
        fs = build({**options, "connect_timeout": CONNECT_S, "request_timeout": SILENCE_S, "retry_strategy": retries})
    elif fs.type_name == "gcs":
        build, (options,) = fs.__reduce__()
        fs = build({**options, "retry_time_limit": timedelta(seconds=SILENCE_S)})
    return fs, path


def folder_and_name(path: str) -> tuple[Storage, str]:
    """A file's folder and its name there. path: local, or an address such as s3://bucket/folder/name."""
    path, options = _options_apart(path)
    folder, _, name = path.rpartition("/")
    return Storage((folder or ("/" if path.startswith("/") else ".")) + options), name


def folder_beside(path: str, suffix: str) -> Storage:
    """The folder that has a file's name with a suffix."""
    path, options = _options_apart(path)
    return Storage(path + suffix + options)


def _options_apart(path: str) -> tuple[str, str]:
    """An address, and the ?options after it."""
    path, mark, options = path.partition("?") if "://" in path else (path, "", "")
    return path, mark + options


def sync_folder(folder: str) -> None:
    """Makes a rename in a local folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turns the file-system faults that a user can mend into one line that says what to do."""
    advice: dict[Any, str] = {
        errno.ENOSPC: "no space is left on the device: free some, and run the same command again to go on",
        errno.EDQUOT: "the disk quota is used up: free some space, and run the same command again to go on",
        errno.EACCES: "permission denied: choose another folder, or change its permissions",
        errno.EROFS: "the file system is read-only: choose another folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
        errno.EEXIST: "a file of that name is in the way: choose another folder",
        errno.EISDIR: "a folder of that name is in the way: choose another name",
        errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    }
    try:
        yield
    except OSError as error:
        if error.errno in advice:
            raise UserError(f"cannot write {what}: {advice[error.errno]}") from error
        raise
