"""Read from the container of a video file whether the file is complete and how long its streams are.

ffmpeg decodes the remaining part of a truncated file and exits with success, and an ffprobe is not installed with every
ffmpeg. So this module reads the most common containers itself. Their top-level structure is a list of boxes with sizes:
a truncated file has a box that ends after the end of the file.
"""

import io
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from lgd.preprocessing.video.joined import second_recording

# A larger index (days of video) is not read, nor is anything after this many boxes.
MAX_INDEX_BYTES = 64 << 20
MAX_BOXES = 200_000
END_BYTES = 512
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
FLV_FILE_SIZE = b"\x00\x08filesize\x00"  # a name of 8 characters, then the type: a number
ISO_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot")
# Anything else after a complete index and its data was appended by a program that does not know the format: the data of
# a camera's sensors, a tag of a music player.
ISO_BOXES = (*ISO_FIRST_BOXES, b"moof", b"mfra", b"sidx", b"ssix", b"emsg", b"prft", b"meta", b"udta", b"uuid", b"pdin")


@dataclass(frozen=True)
class ContainerInfo:
    """Facts that a container declares.

    truncation: one line that describes how much of the file is missing, or None; complete: the container declares its
    size in bytes, the file has them all, and its end is not a reserved space of zeros; second_at: offset of a second
    recording, which was copied behind the first one and which ffmpeg does not read, or None; durations_s: seconds of
    each track, by its id in the container (not by ffmpeg's stream index, which counts cover art as well); ends_s: when
    each stream ends on the clock of the file, in seconds, by stream index. Both only where the container declares them.
    """

    truncation: str | None = None
    complete: bool = False
    second_at: int | None = None
    durations_s: dict[int, float] = field(default_factory=dict)
    ends_s: dict[int, float] = field(default_factory=dict)


def read_container(video: int, seconds: float = math.inf) -> ContainerInfo:
    """Read the container of an open video file.

    Unknown containers give no facts, damaged ones those that can be read. Raises Rejected ("timeout") if more than
    `seconds` are needed to search for a second recording.
    """
    with os.fdopen(os.dup(video), "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        first = file.read(32)
        info = _read(file, size, first[:16])
        if info.second_at is None:
            info = replace(info, second_at=second_recording(file, first, seconds))
        file.seek(max(0, size - END_BYTES))
        # A download that reserves the space first has the size of the complete file.
        return info if any(file.read(END_BYTES)) else replace(info, complete=False)


def _read(file: io.BufferedIOBase, size: int, first: bytes) -> ContainerInfo:
    if first[4:8] in ISO_FIRST_BOXES:
        return _read_iso(file, size)
    if first[:4] == b"RIFF" and first[8:12] == b"AVI ":
        return _read_avi(file, size)
    if first[:4] == b"\x1a\x45\xdf\xa3":
        return _read_matroska(file, size)
    if first == ASF_HEADER:
        return _read_asf(file, size)
    if first[:4] == b"FLV\x01":
        return _read_flv(file, size)
    return ContainerInfo()


# MP4, MOV, 3GP (ISO 14496-12): boxes of (size, type, content).


def _boxes(file: io.BufferedIOBase, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes between two offsets: type, offset of the content, offset after the box (may exceed `end`)."""
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
            size = end - start  # it extends to the end of the file
        if size < content - start:
            return  # zero padding, or damage
        yield kind, content, start + size
        start += size


def _read_iso(file: io.BufferedIOBase, size: int) -> ContainerInfo:
    boxes = list(_boxes(file, 0, size))
    kinds = [kind for kind, _, _ in boxes]
    for kind, _, box_end in boxes:
        if box_end > size and (kind in ISO_BOXES or b"moov" not in kinds or b"mdat" not in kinds):
            name = kind.decode("latin-1")
            return ContainerInfo(f"the file ends {box_end - size} bytes before the end of its {name!r} box")
    second_at = _second_fragments(file, boxes) if b"moof" in kinds else _second_movie(boxes)
    index = next((box for box in boxes if box[0] == b"moov"), None)
    if index is None:
        return ContainerInfo("the file has no index ('moov' box)")
    if index[2] - index[1] > MAX_INDEX_BYTES:
        return ContainerInfo(complete=True, second_at=second_at)
    file.seek(index[1])
    try:
        durations = _iso_durations(file.read(index[2] - index[1]))
    except (struct.error, IndexError):
        return ContainerInfo(second_at=second_at)  # a damaged index: ffmpeg reports the error
    return ContainerInfo(complete=True, second_at=second_at, durations_s=durations)


def _second_movie(boxes: Sequence[tuple[bytes, int, int]]) -> int | None:
    """Return the offset of a second file of data and index that follows a complete one, or None."""
    kinds = [kind for kind, _, _ in boxes]
    if b"moov" not in kinds or b"mdat" not in kinds:
        return None
    behind = max(kinds.index(b"moov"), kinds.index(b"mdat")) + 1
    begin = kinds.index(b"ftyp", behind) if b"ftyp" in kinds[behind:] else behind
    is_second = {b"moov", b"mdat"} <= set(kinds[begin:]) and (b"ftyp" in kinds[behind:] or b"ftyp" not in kinds)
    return boxes[begin - 1][2] if is_second else None


def _second_fragments(file: io.BufferedIOBase, boxes: Sequence[tuple[bytes, int, int]]) -> int | None:
    """Return the offset of a second fragmented file, or None.

    A stream may repeat its index between fragments. In a second file, the times of a track begin again, or
    the track is new."""
    if [kind for kind, _, _ in boxes].count(b"moov") < 2:
        return None
    times: dict[int, int] = {}  # of the last fragment of each track
    second = None
    try:
        for kind, content, box_end in boxes:
            if times and second is None and kind in (b"ftyp", b"moov"):
                second = content - 8
            if kind != b"moof" or box_end - content > MAX_INDEX_BYTES:
                continue
            file.seek(content)
            fragment = file.read(box_end - content)
            for inner, start, end in _boxes(io.BytesIO(fragment), 0, len(fragment)):
                header, time = (_inner_box(fragment[start:end], name) for name in (b"tfhd", b"tfdt"))
                if inner != b"traf" or not time:
                    continue
                track = struct.unpack_from(">I", header, 4)[0]
                begin = struct.unpack_from(">Q" if time[0] == 1 else ">I", time, 4)[0]
                if second is not None and begin <= times.get(track, begin):
                    return second
                times[track] = begin
    except struct.error:
        return None  # a damaged fragment: ffmpeg reports the error
    return None


def _iso_durations(moov: bytes) -> dict[int, float]:
    """Return the seconds of each track by its id, without tracks whose id is not unique.

    In a fragmented file, the index describes only what comes before the fragments.
    """
    movie_scale = 0
    durations: dict[int, float] = {}
    seen: set[int] = set()
    boxes = list(_boxes(io.BytesIO(moov), 0, len(moov)))
    if any(kind == b"mvex" for kind, _, _ in boxes):
        return {}
    for kind, content, box_end in boxes:
        if kind == b"mvhd":
            movie_scale = struct.unpack_from(">I", moov, content + (20 if moov[content] == 1 else 12))[0]
        if kind == b"trak":
            track = moov[content:box_end]
            header = _inner_box(track, b"tkhd")
            if not header:
                continue
            number = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0]
            seconds = _track_duration(track, movie_scale)
            if seconds:
                durations[number] = seconds
            if number in seen:
                durations.pop(number, None)
            seen.add(number)
    return durations


def _track_duration(track: bytes, movie_scale: int) -> float | None:
    """Return the seconds of a track, or None if they are unknown. movie_scale: time units per second of edit lists.

    They are those of its edit list if it has one, else of its media, but not more than its samples last: headers that
    other programs have copied or rounded up declare more.
    """
    media = _inner_box(track, b"mdia", b"mdhd")
    if not media:
        return None
    scale, units = struct.unpack_from(">IQ" if media[0] == 1 else ">II", media, 20 if media[0] == 1 else 12)
    if not scale:
        return None
    declared = [] if units in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF) else [units / scale]
    samples = _inner_box(track, b"mdia", b"minf", b"stbl", b"stts")
    if samples:
        count = min(struct.unpack_from(">I", samples, 4)[0], (len(samples) - 8) // 8)
        declared.append(sum(n * delta for n, delta in struct.iter_unpack(">II", samples[8 : 8 + 8 * count])) / scale)
    edits = _inner_box(track, b"edts", b"elst")
    if edits and movie_scale:
        entry = ">QqI" if edits[0] == 1 else ">IiI"
        count = struct.unpack_from(">I", edits, 4)[0]
        complete = (len(edits) - 8) // struct.calcsize(entry)
        entries = struct.iter_unpack(entry, edits[8 : 8 + min(count, complete) * struct.calcsize(entry)])
        # A negative time is a delay; the duration 0 is that of the media.
        declared.append(sum(units for units, media_time, _ in entries if media_time >= 0) / movie_scale)
    return min((seconds for seconds in declared if seconds > 0), default=None)


def _inner_box(data: bytes, *path: bytes) -> bytes:
    """Return the content of the first box along a path of nested boxes; empty if there is none."""
    for wanted in path:
        boxes = _boxes(io.BytesIO(data), 0, len(data))
        data = next((data[start:end] for kind, start, end in boxes if kind == wanted), b"")
    return data


# AVI (RIFF): little-endian chunks of (type, size, content).


def _read_avi(file: io.BufferedIOBase, size: int) -> ContainerInfo:
    file.seek(4)
    declared = struct.unpack("<I", file.read(4))[0] + 8
    # A recording that was interrupted has 0 or all ones here.
    if size < declared < 0xFFFFFFFF:
        return ContainerInfo(_missing_bytes(declared, size))
    complete = size <= declared + 1  # a file of more than 1 GB has further parts
    file.seek(12)
    kind, length, content = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if kind != b"LIST" or content != b"hdrl" or length > MAX_INDEX_BYTES:
        return ContainerInfo(complete=complete)
    header = file.read(max(0, length - 4))
    ends: dict[int, float] = {}
    stream = at = 0
    while (at := header.find(b"strh", at)) >= 0 and at + 44 <= len(header):
        scale, rate, _, units = struct.unpack_from("<4I", header, at + 8 + 20)
        if header[at + 8 : at + 12] == b"vids" and scale and rate and units:
            ends[stream] = units * scale / rate
        stream += 1
        at += 8
    return ContainerInfo(complete=complete, ends_s=ends)


# Matroska, WebM (EBML): elements of (id, size, content), both of variable length.


def _read_matroska(file: io.BufferedIOBase, size: int) -> ContainerInfo:
    """Compare the size of the segment, which contains all data, with that of the file."""
    start = 0
    for _ in range(MAX_BOXES):
        if start >= size:  # an element that is longer than any file
            break
        file.seek(start)
        kind, at = _vint(file.read(16), 0, keep_marker=True)
        file.seek(start + at)
        length, used = _vint(file.read(16), 0, keep_marker=False)
        if not at or not used:
            break
        element_end = start + at + used + length
        if kind == 0x18538067:
            if length == (1 << 7 * used) - 1:
                break  # unknown: a live recording, written to a pipe
            if element_end <= size:
                return ContainerInfo(complete=True)
            return ContainerInfo(f"the file ends {element_end - size} bytes before the end of its segment")
        start = element_end
    return ContainerInfo()


def _vint(data: bytes, at: int, keep_marker: bool) -> tuple[int, int]:
    """Return the variable-length integer at an offset and its length in bytes; length 0 if there is none."""
    if at >= len(data) or data[at] == 0:
        return 0, 0
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


# ASF, WMV: objects of (GUID, size, content); the file properties object contains the size of the file.


def _read_asf(file: io.BufferedIOBase, size: int) -> ContainerInfo:
    file.seek(0)
    header = file.read(64 << 10)
    at = header.find(ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(header):
        return ContainerInfo()
    declared, live = struct.unpack_from("<Q", header, at + 40)[0], header[at + 88] & 1
    if live or not declared:
        return ContainerInfo()
    return ContainerInfo(_missing_bytes(declared, size)) if declared > size else ContainerInfo(complete=True)


# FLV: the first tag holds properties by name, the size of the file among them. A smaller file is not rejected for it:
# programs that repair or cut FLV files leave the old number. Its declared duration decides.


def _read_flv(file: io.BufferedIOBase, size: int) -> ContainerInfo:
    file.seek(0)
    header = file.read(64 << 10)
    at = header.find(FLV_FILE_SIZE)
    number = header[at + len(FLV_FILE_SIZE) :][:8]
    return ContainerInfo(complete=at >= 0 and len(number) == 8 and struct.unpack(">d", number)[0] == size)


def _missing_bytes(declared: int, size: int) -> str:
    return f"the file ends {declared - size} bytes before its declared end ({declared} bytes)"
