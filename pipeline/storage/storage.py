"""Files: one interface to a local folder or an object store (s3://, gs://), through pyarrow.fs.

Every write is atomic: local files are written under a temporary name, flushed to the disk and renamed; objects are sent
in one request from a local temporary file. Requests that an object store fails are repeated, see `retries`.
"""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from lgd.pipeline.console.errors import StoreError, UsageError, UserError
from lgd.pipeline.storage.paths import check_file, check_folder, check_path, check_target, path_errors
from lgd.pipeline.storage.ranges import RangeFile
from lgd.pipeline.storage.retries import MISSING_BUCKET, with_retries

# Prefix of files that are being written. Killed processes leave them; the next run removes them.
TEMPORARY = ".tmp-"
BLOCK_BYTES = 8 << 20  # size of the blocks in which a remote file is read
OBJECT_STORES = ("s3", "gcs")  # they have buckets and objects, and no folders
CONNECT_S = 3.0  # time-out of a connection
SILENCE_S = 5.0  # time-out of a request during which no byte arrives
QUICK_ATTEMPTS = 2  # attempts that pyarrow makes of each request; `with_retries` repeats these after a wait

Result = TypeVar("Result")


class Storage:
    """A folder, local or remote. Its methods take paths relative to it, with forward slashes.

    Thread-safe. Every method raises StoreError if an object store is unreachable or rejects a request, UserError for a
    local path of the wrong kind (see `paths`), and FileNotFoundError if a file to read is missing."""

    def __init__(self, root: str | Path):
        """root: a path, in which `~` at the start is the home folder, or an address for pyarrow, such as
        s3://bucket/folder?region=eu-west-1.

        Raises UsageError if the path is empty, and UserError if the address is not valid."""
        self.root = check_path(os.fspath(root))
        # For messages: without the password that an address may contain.
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
            raise UserError(f"{self.display()} does not name a bucket: give one, such as s3://bucket/folder")
        self.local = isinstance(self.fs, pafs.LocalFileSystem)
        self.temporary_prefix = TEMPORARY

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        # Created again where it is unpickled, so that a task of the cluster opens its own connections.
        return Storage, (self.address,)

    @property
    def address(self) -> str:
        """The root with which `Storage` opens this folder again, from any working folder."""
        return self.root if "://" in self.root else self.base

    def path(self, name: str = "") -> str:
        """Return the path of `name` for `self.fs`."""
        return f"{self.base}/{name}" if name else self.base

    def display(self, name: str = "") -> str:
        """Return the path or address of `name` for messages, as a user writes it."""
        return (f"{self._shown.rstrip('/')}/{name}" if name else self._shown) + self._query

    def exists(self, name: str = "") -> bool:
        """Return whether a file or folder exists; by default, this folder itself.

        Raises StoreError if this folder is asked for and its bucket does not exist."""
        found = bool(self._info(self.path(name), name).type != pafs.FileType.NotFound)
        if not found and not name and self.fs.type_name in OBJECT_STORES:
            bucket = self._info(self.base.partition("/")[0])
            if bucket.type == pafs.FileType.NotFound:
                raise StoreError(f"{self.display()}: {MISSING_BUCKET}")
        return found

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""
        info = self._info(self.path(name), name)
        return info.size if info.type == pafs.FileType.File else None

    def stamp(self, name: str) -> str:
        """Return size and modification time of a file as text, which changes when the file is replaced."""
        info = self._info(self.path(name), name)
        return f"{info.size} {info.mtime_ns}"

    def modified_s(self, name: str) -> float:
        """Return the modification time of a file, seconds since 1970, by the clock of its store."""
        return float(self._info(self.path(name), name).mtime_ns or 0) / 1e9

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted; empty if the folder does not exist."""
        return sorted(info.base_name for info in self._list(folder, recursive=False))

    def list_all(self) -> list[str]:
        """Return the paths of all files at any depth, sorted, from one listing."""
        above = len(self.base) + 1
        return sorted(info.path[above:] for info in self._list("", recursive=True))

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for random-access reading. Reads of a remote file are not repeated: see `read_range`."""
        self._check_file(name)
        return self._with_retries(name, lambda: self.fs.open_input_file(self.path(name)))

    def open_ranges(self, name: str) -> pa.NativeFile:
        """Open a file to read parts of it; failed reads of a remote one are repeated."""
        if self.local:
            return self.open(name)
        return pa.PythonFile(RangeFile(self.open(name), partial(self._with_retries, name)), mode="r")

    def open_whole(self, name: str) -> pa.NativeFile:
        """Open a file to read all of it: a remote one is read into memory first, so that no later read fails."""
        return self.open(name) if self.local else pa.BufferReader(self.read(name))

    def map(self, name: str) -> pa.NativeFile:
        """Open a memory-mapped file for reading. A remote one is copied to the temporary folder first, without a name
        there, so that the copy disappears when it is closed.

        Raises UserError if the temporary folder is full."""
        if self.local:
            self._check_file(name)
            return pa.memory_map(self.path(name))
        target = f"{_temporary_folder()}, where a copy of {self.display(name)} is kept while it is open"
        with disk_errors(target), tempfile.NamedTemporaryFile(prefix=TEMPORARY) as file:
            for block in self.blocks(name):
                file.write(block)
            file.flush()
            return pa.memory_map(file.name)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

        def read() -> bytes:
            with self.fs.open_input_file(self.path(name)) as file:
                return bytes(file.read())

        self._check_file(name)
        return self._with_retries(name, read)

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of a file from byte `start` on, or fewer if the file ends before."""

        def read() -> bytes:
            with self.fs.open_input_file(self.path(name)) as file:
                return bytes(file.read_at(length, start))

        self._check_file(name)
        return self._with_retries(name, read)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in blocks of at most BLOCK_BYTES."""
        with self.open(name) as file:
            for start in range(0, file.size(), BLOCK_BYTES):
                yield self._with_retries(name, lambda start=start: file.read_at(BLOCK_BYTES, start))  # type: ignore[misc]

    def make_folder(self, folder: str = "") -> None:
        """Create a folder and those above it; nothing in object stores, which have no folders."""
        if self.fs.type_name not in OBJECT_STORES:
            try:
                with disk_errors(self.display(folder)):
                    create = partial(self.fs.create_dir, self.path(folder), recursive=True)
                    create() if self.local else self._with_retries(folder, create)
            except FileNotFoundError as error:
                raise UserError(f"cannot create the folder {self.display(folder)}: choose a different one") from error

    def check_lock(self) -> None:
        """Do nothing: this folder is used without a lock. See `lock.LockedStorage`."""

    def delete(self, name: str, missing_ok: bool = False) -> None:
        """Delete a file. Raises FileNotFoundError if a local file is missing, unless `missing_ok`. A missing remote
        file is not an error, because a deletion is repeated when its response was lost."""
        self.check_lock()
        with contextlib.suppress(FileNotFoundError) if missing_ok or not self.local else contextlib.nullcontext():
            self._with_retries(name, lambda: self.fs.delete_file(self.path(name)))

    @contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """Open a binary file that appears under `name` when the block ends without an error, and otherwise not at all.

        Raises UserError if the disk is full or the folder is not writable."""
        folder, _, base = name.rpartition("/")
        temporary_folder, target = self.path(folder), self.display(name)
        if not self.local:
            temporary_folder = tempfile.gettempdir()
            target = f"{_temporary_folder()}, where {target} is written before it is sent"
        else:
            check_target(self.path(name), target)
        with disk_errors(target):
            handle, temporary = tempfile.mkstemp(prefix=self.temporary_prefix, suffix=f"-{base}", dir=temporary_folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                self.check_lock()
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
        """Write a file atomically."""
        with self.writer(name) as file:
            file.write(content)

    def _put(self, file: str, name: str) -> None:
        # Not pyarrow.fs.copy_files: it raises no error when a part of a large object could not be sent (pyarrow 26).
        # In one write, because a stream is closed even after an error, which would create an incomplete object.
        with pa.memory_map(file) as source:
            content = source.read_buffer()
            stream = self.fs.open_output_stream(self.path(name))
            stream.write(content)
            stream.close()

    def _with_retries(self, name: str, do: Callable[[], Result]) -> Result:
        if not self.local:
            return with_retries(self.display(name), do)
        with path_errors(self.display(name)):
            return do()

    def _check_file(self, name: str) -> None:
        """Raise UserError for a local path that is not a regular file, before it is opened: a pipe would wait."""
        if self.local:
            check_file(self.path(name), self.display(name))

    def _info(self, path: str, name: str = "") -> pafs.FileInfo:
        return self._with_retries(name, lambda: self.fs.get_file_info(path))

    def _list(self, folder: str, recursive: bool) -> list[pafs.FileInfo]:
        """Return the files in a folder, without the objects that mark folders in an object store."""
        if self.local:
            check_folder(self.path(folder), self.display(folder))
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        infos = self._with_retries(folder, lambda: self.fs.get_file_info(selector))
        return [info for info in infos if info.type == pafs.FileType.File]


def _connect(address: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of an address, with time-outs of seconds, and the path in it.

    pyarrow accepts no time-outs in an address; but a pickled file system is its arguments, which can be changed."""
    fs, path = pafs.FileSystem.from_uri(address)
    if fs.type_name == "s3":
        build, (options,) = fs.__reduce__()
        retries = pafs.AwsStandardS3RetryStrategy(QUICK_ATTEMPTS)
        fs = build({**options, "connect_timeout": CONNECT_S, "request_timeout": SILENCE_S, "retry_strategy": retries})
    elif fs.type_name == "gcs":
        build, (options,) = fs.__reduce__()
        fs = build({**options, "retry_time_limit": timedelta(seconds=SILENCE_S)})
    return fs, path


def absolute_path(path: str) -> str:
    """Return a local path as an absolute one, with `~` at the start as the home folder; a remote address unchanged."""
    return path if "://" in path else os.path.abspath(check_path(path))


def folder_and_name(path: str) -> tuple[Storage, str]:
    """Return the folder of a file, and its name there. path: local, or an address such as s3://bucket/folder/name.

    Raises UsageError for a path that ends like that of a folder."""
    path, options = _split_options(check_path(path))
    folder, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        raise UsageError(f"{path} is a folder: give the name of a file")
    return Storage((folder or ("/" if path.startswith("/") else ".")) + options), name


def folder_beside(path: str, suffix: str) -> Storage:
    """Return the folder next to a file that has its name with a suffix."""
    path, options = _split_options(path)
    return Storage(path + suffix + options)


def _split_options(path: str) -> tuple[str, str]:
    """Return an address without the ?options at its end, and these."""
    path, mark, options = path.partition("?") if "://" in path else (path, "", "")
    return path, mark + options


def _temporary_folder() -> str:
    return f"in {tempfile.gettempdir()} (set TMPDIR for a different folder)"


def sync_folder(folder: str) -> None:
    """Flush a local folder to the disk, so that a rename in it survives a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(target: str) -> Iterator[None]:
    """Turn the errors of a file system that a user can fix into a UserError of one line that says what to do.

    target: what was written, after the words "cannot write"."""
    advice: dict[Any, str] = {
        errno.ENOSPC: "no space is left on the device: free some, and rerun the same command to resume",
        errno.EDQUOT: "the disk quota is used up: free some space, and rerun the same command to resume",
        errno.EACCES: "permission denied: choose a different folder, or change its permissions",
        errno.EROFS: "the file system is read-only: choose a different folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder: choose a different folder",
        errno.EEXIST: "a file with this name already exists: choose a different folder",
        errno.EISDIR: "a folder with this name already exists: choose a different name",
        errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
        errno.ELOOP: "a symbolic link leads to itself: choose a different name",
    }
    try:
        yield
    except OSError as error:
        if error.errno in advice:
            raise UserError(f"cannot write {target}: {advice[error.errno]}") from error
        raise
