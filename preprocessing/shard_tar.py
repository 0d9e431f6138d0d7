"""The tar of one shard: its format, a writer that also records the index rows, and a reader."""

import json
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import IO, Any, NamedTuple

import numpy as np

from lgd.pipeline.dataset.dataset import shard_name
from lgd.pipeline.dataset.index_format import IndexRow, stored_label
from lgd.pipeline.dataset.index_parts import read_part
from lgd.pipeline.dataset.shard_file import Member, damaged_shard, tar_members
from lgd.pipeline.storage.checked_json import parse_json
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Video

MTIME = 0  # of every tar member, so that the same videos give the same bytes
BLOCK = 512  # bytes of a tar block


class EncodedVideo(NamedTuple):
    """One video as a shard stores it. description: the JSON member. frames: JPEGs, the MJPEG member when joined."""

    description: dict[str, Any]
    frames: list[bytes]


class ShardTar:
    """Writer of the tar of one shard of one stream.

    rows: the index rows of the videos written so far. videos: per video, the columns of videos.parquet that depend on
    the stream. size: bytes of the closed tar."""

    def __init__(self, file: IO[bytes], shard: str):
        import webdataset  # imported here because it imports torch, which only the tasks need

        self.rows: list[IndexRow] = []
        self.videos: list[dict[str, Any]] = []
        self.size = 0
        self._file, self._shard = file, shard
        self._writer = webdataset.TarWriter(file, mtime=MTIME, encoder=False)

    @classmethod
    @contextmanager
    def create(cls, storage: Storage, stream: str, shard: str) -> Iterator["ShardTar"]:
        """Open a new tar, which appears in the dataset if the block ends without an error, and otherwise not at all."""
        with storage.writer(shard_name(stream, shard)) as file, closing(cls(file, shard)) as tar:
            yield tar

    def add(self, video: Video, encoded: EncodedVideo) -> None:
        """Write the pair of members of a video."""
        description, frames = encoded
        text = json.dumps(description, sort_keys=True, ensure_ascii=False).encode()
        body = b"".join(frames)
        self._writer.write({"__key__": video.key, "json": text, "mjpeg": body})
        padded = -(-len(body) // BLOCK) * BLOCK
        offset = self._writer.tarstream.offset - padded  # the mjpeg member was written last
        ends = np.cumsum([len(frame) for frame in frames]).tolist()
        crcs = [zlib.crc32(frame) for frame in frames]
        size = description["width"], description["height"]
        label = stored_label(video.label)
        self.rows.append(IndexRow(video.key, video.split, self._shard, label, *size, offset, ends, crcs))
        columns = {name: description[name] for name in ("saturated",) if name in description}
        self.videos.append({"bytes": len(body), **columns})

    def close(self) -> None:
        """Write the end of the tar and set `size`."""
        self._writer.close()
        self.size = self._file.tell()


def read_shard(storage: Storage, stream: str, shard: str) -> Generator[EncodedVideo, None, None]:
    """Yield the videos of a shard in order. Raises UserError if the tar is damaged or a frame has a wrong checksum."""
    part = read_part(storage, stream, shard)[0]
    source = storage.display(shard_name(stream, shard))
    with damaged_shard(source), storage.open_whole(shard_name(stream, shard)) as file:
        members = tar_members(file, file.size())
        for crcs in part.column("crc32"):
            description = parse_json(_next_member(members), source)
            body = _next_member(members)
            ends = np.cumsum(description["bytes"]).tolist()
            frames = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            if [zlib.crc32(frame) for frame in frames] != crcs.as_py():
                raise ValueError(f"a frame of {description['key']} has a wrong checksum")
            yield EncodedVideo(description, frames)


def _next_member(members: Iterator[tuple[Member, IO[bytes]]]) -> bytes:
    found = next(members, None)
    if found is None:
        raise EOFError("a video is missing")
    return found[1].read()
