"""What a video file declares about itself, read from the structure of its container: is it whole, how long is it.

ffmpeg decodes what there is of a file that was cut off and ends with success, and there is no ffprobe beside every
ffmpeg. So the families of containers that nearly all videos come in are asked directly; their top-level
structure is a list of sized boxes, and a cut anywhere shows as a box that ends behind the end of the file.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# An index larger than this (days of video) is left unread, and so is what follows this many boxes.
MAX_INDEX_BYTES = 64 << 20
MAX_BOXES = 200_000
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ISO_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot")


@dataclass(frozen=True)
class Declared:
    """What the container says. cut: how the file is shorter than it says, or None; durations_s: seconds of each
    stream, by stream index, where the container says it."""

    cut: str | None
    durations_s: dict[int, float]


def read_declared(video: int) -> Declared:
    """Read what an open video file declares. Unknown containers declare nothing; damaged ones what is readable."""
    with os.fdopen(os.dup(video), "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        first = file.read(16)
        if first[4:8] in ISO_FIRST_BOXES:
            return _iso(file, size)
        if first[:4] == b"RIFF" and first[8:12] == b"AVI ":
            return _avi(file, size)
        if first[:4] == b"\x1a\x45\xdf\xa3":
            return Declared(_cut_matroska(file, size), {})
        if first == ASF_HEADER:
            return Declared(_cut_asf(file, size), {})
    return Declared(None, {})


# MP4, MOV, 3GP (ISO 14496-12): boxes of (size, type, content).


def _boxes(file: io.BufferedIOBase, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes between two offsets: type, first byte of the content, first byte behind (perhaps behind `end`)."""
    for _ in range(MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1 and start + 16 <= end:
            size = struct.unpack(">Q", file.read(8))[0]
            content = start + 16
        elif size == 0 and kind == b"mdat":
            size = end - start  # up to the end of the file
        if size < content - start:
            return  # zero padding, or damage
        yield kind, content, start + size
        start += size


def _iso(file: io.BufferedIOBase, size: int) -> Declared:
    boxes = list(_boxes(file, 0, size))
    for kind, _, behind in boxes:
        if behind > size:
            return Declared(f"the file ends {behind - size} bytes before its {kind.decode('latin-1')!r} box does", {})
    index = next((box for box in boxes if box[0] == b"moov"), None)
    if index is None:
        return Declared("the file has no index ('moov' box)", {})
    if index[2] - index[1] > MAX_INDEX_BYTES:
        return Declared(None, {})
    file.seek(index[1])
    try:
        return Declared(None, dict(_iso_durations(file.read(index[2] - index[1]))))
    except (struct.error, IndexError):
        return Declared(None, {})  # a damaged index declares nothing; ffmpeg will say what is wrong with it


def _iso_durations(moov: bytes) -> Iterator[tuple[int, float]]:
    """(stream index, seconds) of each track: of its edits where it has an edit list, else of its samples."""
    movie_scale = 0
    stream = 0
    for kind, content, behind in _boxes(io.BytesIO(moov), 0, len(moov)):
        if kind == b"mvhd":
            movie_scale = struct.unpack_from(">I", moov, content + (20 if moov[content] == 1 else 12))[0]
        if kind == b"trak":
            seconds = _track_duration(moov[content:behind], movie_scale)
            if seconds:
                yield stream, seconds
            stream += 1


def _track_duration(track: bytes, movie_scale: int) -> float | None:
    edits = _inner(track, b"edts", b"elst")
    if edits and movie_scale:
        entry = ">QqI" if edits[0] == 1 else ">IiI"
        count = struct.unpack_from(">I", edits, 4)[0]
        whole = (len(edits) - 8) // struct.calcsize(entry)
        entries = struct.iter_unpack(entry, edits[8 : 8 + min(count, whole) * struct.calcsize(entry)])
        shown = sum(units for units, media_time, _ in entries if media_time >= 0)  # negative: an empty edit, a delay
        if shown:
            return shown / movie_scale
    media = _inner(track, b"mdia", b"mdhd")
    if not media:
        return None
    scale, units = struct.unpack_from(">IQ" if media[0] == 1 else ">II", media, 20 if media[0] == 1 else 12)
    unknown = units in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    return None if unknown or not scale else units / scale


def _inner(track: bytes, outer: bytes, inner: bytes) -> bytes:
    """The content of the first box `inner` in a box `outer` of a track; empty if there is none."""
    for kind, content, behind in _boxes(io.BytesIO(track), 0, len(track)):
        if kind == outer:
            for kind_inside, start, end in _boxes(io.BytesIO(track), content, min(behind, len(track))):
                if kind_inside == inner:
                    return track[start:end]
    return b""


# AVI (RIFF): little-endian chunks of (type, size, content).


def _avi(file: io.BufferedIOBase, size: int) -> Declared:
    file.seek(4)
    declared = struct.unpack("<I", file.read(4))[0] + 8
    # Recorders that were switched off leave 0 or all ones.
    if size < declared < 0xFFFFFFFF:
        return Declared(f"the file ends {declared - size} bytes before it says ({declared} bytes)", {})
    file.seek(12)
    kind, length, content = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if kind != b"LIST" or content != b"hdrl" or length > MAX_INDEX_BYTES:
        return Declared(None, {})
    header = file.read(max(0, length - 4))
    durations: dict[int, float] = {}
    stream = at = 0
    while (at := header.find(b"strh", at)) >= 0 and at + 44 <= len(header):
        scale, rate, _, units = struct.unpack_from("<4I", header, at + 8 + 20)
        if header[at + 8 : at + 12] == b"vids" and scale and rate and units:
            durations[stream] = units * scale / rate
        stream += 1
        at += 8
    return Declared(None, durations)


# Matroska, WebM (EBML): elements of (id, size, content), both of variable length.


def _cut_matroska(file: io.BufferedIOBase, size: int) -> str | None:
    """The segment, which holds everything, must end inside the file."""
    start = 0
    for _ in range(MAX_BOXES):
        file.seek(start)
        kind, at = _vint(file.read(16), 0, keep_marker=True)
        file.seek(start + at)
        length, used = _vint(file.read(16), 0, keep_marker=False)
        if not at or not used:
            return None
        behind = start + at + used + length
        if kind == 0x18538067:
            unknown = length == (1 << 7 * used) - 1  # written live, to a pipe
            return None if unknown or behind <= size else f"the file ends {behind - size} bytes before its segment does"
        start = behind
    return None


def _vint(data: bytes, at: int, keep_marker: bool) -> tuple[int, int]:
    """A variable-length integer and its length in bytes; length 0 if there is none."""
    if at >= len(data) or data[at] == 0:
        return 0, 0
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


# ASF, WMV: objects of (GUID, size, content); the one of file properties holds the size of the file.


def _cut_asf(file: io.BufferedIOBase, size: int) -> str | None:
    file.seek(0)
    header = file.read(64 << 10)
    at = header.find(ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(header):
        return None
    declared, live = struct.unpack_from("<Q", header, at + 40)[0], header[at + 88] & 1
    return None if live or declared <= size else f"the file ends {declared - size} bytes before it says"
