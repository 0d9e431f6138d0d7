"""Find a second recording that was copied behind the first one (`cat a.flv b.flv`).

Of some containers ffmpeg reads only the first recording, or damages the frames around the join, without an error. The
others (AVI, Matroska, WebM, MPEG-TS, MPEG-PS, Ogg, GIF, DV, raw streams) need no such check: it reads on.
"""

import errno
import io
import math
import os
import re
import time

from lgd.preprocessing.video.rejections import Rejected

BLOCK_BYTES = 4 << 20
LONGEST = 64  # bytes of a header that are compared
# The first bytes of a file, and a pattern of what follows them in the header of a second recording: long enough that a
# picture or a sound does not contain it by chance.
HEADERS = {
    b"FLV\x01": rb"[\x00-\x05]\x00\x00\x00\x09\x00\x00\x00\x00[\x08\x09\x12]",
    b"nut/multimedia container\0": rb"N",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"): rb".{7}\x00.{4}\x01\x02",  # ASF, WMV
    b"DKIF\x00\x00\x20\x00": rb"[ -~]{4}",  # IVF, and the code of its codec
    b".RMF": rb".{12,14}PROP",
    b"YUV4MPEG2 ": rb"[A-Z]\w+ ",
    bytes.fromhex("b7d800203749da11a64e0007e95ead8d"): rb"",  # WTV
    # MXF: the header partition. A file has one, and any number of body partitions.
    bytes.fromhex("060e2b34020501010d01020101"): rb"\x02[\x01-\x04]\x00",
}


def second_recording(file: io.BufferedIOBase, first: bytes, seconds: float = math.inf) -> int | None:
    """Return the offset of the second header in a file, or None if there is none or ffmpeg reads it as well.

    first: the first bytes of the file, at least 32 if it has as many. Reads the complete file, in blocks and without
    its holes, only if it is in one of the containers in HEADERS. Raises Rejected ("timeout") after `seconds`."""
    start = next((start for start in HEADERS if first.startswith(start)), None)
    if start is None:
        return None
    following = re.compile(HEADERS[start], re.DOTALL)
    deadline = time.monotonic() + seconds
    file.seek(0)
    offset, data = 0, b""
    while True:
        if _skip_hole(file):
            offset, data = file.tell(), b""
        more = file.read(BLOCK_BYTES)
        if not more:
            return None
        offset += max(len(data) - LONGEST, 0)
        data = data[-LONGEST:] + more
        at = data.find(start, 0 if offset else 1)
        while at >= 0:
            if following.match(data, at + len(start)):
                return offset + at
            at = data.find(start, at + 1)
        if time.monotonic() > deadline:
            raise Rejected("timeout", f"the file is so large that reading it takes longer than {seconds:g} s")


def _skip_hole(file: io.BufferedIOBase) -> bool:
    """Move to the next bytes that are stored, and return whether bytes were skipped: a hole in a sparse file may be of
    any size, and contains only zeros."""
    place = file.tell()
    try:
        stored = _next_stored(file.fileno(), place)
    except io.UnsupportedOperation:  # not a file of the system
        return False
    file.seek(place if stored is None else stored)
    return stored is not None and stored > place


def _next_stored(descriptor: int, place: int) -> int | None:
    """Return the offset of the next stored byte, or of the end; None if the file system does not know its holes."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)  # which the buffered file relies on
    try:
        return os.lseek(descriptor, place, os.SEEK_DATA)
    except OSError as error:
        return os.lseek(descriptor, 0, os.SEEK_END) if error.errno == errno.ENXIO else None  # a hole up to the end
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
