"""Find a second recording that was copied behind the first one (`cat a.flv b.flv`).

Of some containers ffmpeg reads only the first recording, or damages the frames around the join, without an error. The
others (AVI, Matroska, WebM, MPEG-TS, MPEG-PS, Ogg, GIF, DV, raw streams) need no such check: it reads on.
"""

import io
import re

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


def second_recording(file: io.BufferedIOBase, first: bytes) -> int | None:
    """Return the offset of the second header in a file, or None if there is none or ffmpeg reads it as well.

    first: the first bytes of the file, at least 32 if it has as many. Reads the complete file, in blocks, only if it is
    in one of the containers in HEADERS."""
    start = next((start for start in HEADERS if first.startswith(start)), None)
    if start is None:
        return None
    following = re.compile(HEADERS[start], re.DOTALL)
    file.seek(0)
    offset, data = 0, file.read(BLOCK_BYTES)
    while data:
        at = data.find(start, 0 if offset else 1)
        while at >= 0:
            if following.match(data, at + len(start)):
                return offset + at
            at = data.find(start, at + 1)
        more = file.read(BLOCK_BYTES)
        if not more:
            return None
        offset += max(len(data) - LONGEST, 0)
        data = data[-LONGEST:] + more
    return None
