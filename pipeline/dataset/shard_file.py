"""Read the tar of a shard, which may be damaged or forged, and its index rows from the tar itself."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import shard_name
from lgd.pipeline.dataset.index_format import IndexRow, split_of, stored_label
from lgd.pipeline.dataset.index_places import KEY_BYTES
from lgd.pipeline.storage.checked_json import DamagedFile, read_json
from lgd.pipeline.storage.storage import Storage

ADVICE = "delete it and rerun `lgd preprocess` to recreate it"


# What reading a tar raises; the last two for a header that announces more than there is, and for very many headers.
INVALID_TAR = (
    tarfile.TarError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class Member(NamedTuple):
    """A member of a tar. offset: the byte in the tar at which its content starts."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class _Description:
    """What the JSON member of a video must have. bytes: of each frame."""

    label: int | None
    width: int
    height: int
    bytes: list[int]

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height), ("bytes", min(self.bytes, default=0))):
            if not 1 <= value < 1 << 31:
                raise UserError(f"field {name!r} has the value {value}")
        if self.label is not None and not 0 <= self.label < 1 << 31:
            raise UserError(f"field 'label' is {self.label}")
        if sum(self.bytes) >= 1 << 32:
            raise UserError("field 'bytes' has a sum of 4 GB or more")


@contextmanager
def damaged_shard(source: str) -> Iterator[None]:
    """Turn the errors of reading a tar into DamagedFile. source: name of the tar."""
    try:
        yield
    except INVALID_TAR as error:
        text = " ".join(str(error).split()) or "a header announces more than there is"
        raise DamagedFile(f"{source} is damaged ({text[:200]}): {ADVICE}") from error


def tar_members(file: Any, size: int) -> Iterator[tuple[Member, IO[bytes]]]:
    """Yield the members of an uncompressed tar with their content, a file that must be read before the next one.

    size: of the tar, bytes. Raises tarfile.TarError or ValueError for a member that is not a plain file within it."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        end = 0
        for member in tar:
            start = member.offset_data
            # tarfile follows links, expands sparse files, and goes back for a negative size.
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                raise ValueError(f"{member.name[:60]!r} is not a plain file")
            if not end <= start <= start + member.size <= size:
                raise ValueError(f"{member.name[:60]!r} goes beyond the end")
            end = start + member.size
            content = tar.extractfile(member)
            assert content is not None  # as it is a plain file
            yield Member(member.name, start, member.size), content


def scan_shard(storage: Storage, stream: str, shard: str) -> list[IndexRow]:
    """Return the index rows of one shard, read from the tar itself. Raises UserError if it is damaged."""
    name = shard_name(stream, shard)
    source = storage.display(name)
    rows: list[IndexRow] = []
    metadata: dict[str, _Description] = {}
    frames: dict[str, tuple[int, bytes]] = {}  # the byte at which they start in the tar, and the frames
    with damaged_shard(source), storage.open_whole(name) as file:
        for member, content in tar_members(file, file.size()):
            key, _, suffix = member.name.partition(".")
            if not key or key.encode().translate(None, KEY_BYTES) or suffix not in ("json", "mjpeg"):
                raise UserError(f"{source} contains {member.name[:60]!r}, which does not belong in a shard: {ADVICE}")
            if key in (metadata if suffix == "json" else frames):
                raise ValueError(f"{member.name} appears twice")
            if suffix == "json":
                metadata[key] = read_json(_Description, content.read(), f"{key}.json of {source}", advice=ADVICE)
            else:
                frames[key] = member.offset, content.read()
            if key in metadata and key in frames:  # the frames of one video in memory at a time
                offset, body = frames[key]
                frames[key] = offset, b""
                rows.append(_row(key, shard, metadata[key], offset=offset, body=body, source=source))
        if alone := sorted(metadata.keys() ^ frames.keys()):
            raise ValueError(f"only one of the two files of {alone[0]}")
    return rows


def _row(key: str, shard: str, video: _Description, *, offset: int, body: bytes, source: str) -> IndexRow:
    ends = np.cumsum(video.bytes)
    if int(ends[-1]) != len(body):
        raise DamagedFile(f"{key}.mjpeg of {source} does not have the length of its frames: {ADVICE}")
    starts = ends - video.bytes
    checksums = [zlib.crc32(body[start:end]) for start, end in zip(starts, ends, strict=True)]
    return IndexRow(
        key,
        split_of(shard),
        shard,
        stored_label(video.label),
        video.width,
        video.height,
        offset,
        ends.tolist(),
        checksums,
    )
