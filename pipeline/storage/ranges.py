"""A remote file of which parts are read, with every failed read repeated."""

import io
import os
from collections.abc import Callable

import pyarrow as pa


class RangeFile(io.RawIOBase):
    """A remote file whose failed reads are repeated. Errors of its content are raised by what reads it, and are not."""

    def __init__(self, file: pa.NativeFile, retry: Callable[[Callable[[], bytes]], bytes]):
        self._file, self._retry = file, retry

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def size(self) -> int:
        return int(self._file.size())

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        length = self.size() - start if size is None or size < 0 else size
        content = self._retry(lambda: bytes(self._file.read_at(length, start)))
        self._file.seek(start + len(content))
        return content
