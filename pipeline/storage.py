"""Where bytes live: one interface to a local folder or an object store (s3://, gs://), through pyarrow.fs.

Every write appears whole or not at all: local files are written aside, flushed to the disk and renamed; objects are
put in one piece from a local temporary file.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import UserError

TEMPORARY = ".tmp-"  # prefix of files that are being written; left behind only by a kill, removed by the next run


class Storage:
    """A folder, local or remote. Paths given to its methods are relative to it, with forward slashes."""

    def __init__(self, root: str | Path):
        self.root = str(root)
        if "://" in self.root:
            try:
                self.fs, self.base = pafs.FileSystem.from_uri(self.root)
            except (pa.ArrowInvalid, OSError) as error:
                raise UserError(f"cannot open {self.root}: {error}") from error
        else:
            self.fs, self.base = pafs.LocalFileSystem(), os.path.abspath(self.root)
        self.local = isinstance(self.fs, pafs.LocalFileSystem)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        # Rebuilt on the other side, so that a cluster task opens its own connections.
        return Storage, (self.root if "://" in self.root else self.base,)

    def path(self, name: str = "") -> str:
        """The path of `name` as `self.fs` takes it."""
        return f"{self.base}/{name}" if name else self.base

    def show(self, name: str = "") -> str:
        """The path of `name` as a user writes it."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        return self.fs.get_file_info(self.path(name)).type != pafs.FileType.NotFound

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if there is no such file."""
        info = self.fs.get_file_info(self.path(name))
        return info.size if info.type == pafs.FileType.File else None

    def names(self, folder: str = "") -> list[str]:
        """Names of the files in a folder, sorted; empty if there is no such folder."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        return sorted(info.base_name for info in self.fs.get_file_info(selector) if info.type == pafs.FileType.File)

    def open(self, name: str) -> pa.NativeFile:
        """A random-access file for reading."""
        return self.fs.open_input_file(self.path(name))

    def map(self, name: str) -> pa.NativeFile:
        """A file for reading, memory-mapped where the storage is local."""
        return pa.memory_map(self.path(name)) if self.local else self.open(name)

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def make_folder(self, folder: str = "") -> None:
        with explained(self.show(folder)):
            self.fs.create_dir(self.path(folder), recursive=True)

    def delete(self, name: str) -> None:
        self.fs.delete_file(self.path(name))

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
        with explained(self.show(name)):
            aside = self.path(folder) if self.local else None
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
                    pafs.copy_files(temporary, self.path(name), pafs.LocalFileSystem(), self.fs)
            finally:
                if os.path.exists(temporary):
                    os.unlink(temporary)

    def write(self, name: str, content: bytes) -> None:
        """Writes a whole file atomically."""
        with self.writer(name) as file:
            file.write(content)


def sync_folder(folder: str) -> None:
    """Makes a rename in a local folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns the file-system faults that a user can mend into one line that says what to do."""
    advice: dict[Any, str] = {
        errno.ENOSPC: "no space is left on the device: free some, and run the same command again to go on",
        errno.EDQUOT: "the disk quota is used up: free some space, and run the same command again to go on",
        errno.EACCES: "permission denied: choose another folder, or change its permissions",
        errno.EROFS: "the file system is read-only: choose another folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
        errno.EEXIST: "a file of that name is in the way: choose another folder",
    }
    try:
        yield
    except OSError as error:
        if error.errno in advice:
            raise UserError(f"cannot write {what}: {advice[error.errno]}") from error
        raise
