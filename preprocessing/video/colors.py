"""The color matrix of videos that do not declare one ("untagged"): it turns the stored YCbCr into RGB.

Players take untagged video for BT.709 if it is high definition, and for BT.601 otherwise: Chromium from 720 lines on,
mpv from 1280 columns or 577 lines on. ffmpeg's filters take it for BT.601 whatever its size.
"""

import re
from typing import Literal

# bt709-hd: BT.709 for frames of 720 lines and more as they are stored, before rotation; BT.601 for smaller ones.
UntaggedMatrix = Literal["bt709-hd", "bt601"]
HD_LINES = 720

PIXELS = re.compile(r", (\w+)(?:\(([^()]*)\))?, \d+x\d+")
MATRICES = ("bt709", "smpte170m", "smpte240m")  # that are also names of primaries and of a transfer function
# Formats without a matrix; gray pictures are the same with every matrix.
NOT_YCBCR = re.compile(r"^(?:none|pal8|gray|mono|ya\d|xyz|bayer|gbr|[argbx0]*(?:rgb|bgr)[a-z0]*\d*)")


def is_untagged(description: str) -> bool:
    """Return whether a video stream, described by ffmpeg ("h264, yuv420p(tv, bt709), 1280x720"), is YCbCr and declares
    no matrix. The colors are in parentheses: the range, then matrix/primaries/transfer, or one name for all three."""
    pixels = PIXELS.search(description)
    if pixels is None or NOT_YCBCR.match(pixels[1]):
        return False
    names = [name.split("/")[0] for name in (pixels[2] or "").split(", ") if "/" in name or name in MATRICES]
    return all(name in ("unknown", "reserved") for name in names)


def color_matrix(untagged: bool, height: int, rule: UntaggedMatrix) -> str | None:
    """Return the matrix to use for a video whatever it declares, by ffmpeg's name, or None for the one it declares.

    untagged: see `is_untagged`. height: lines of a stored frame. rule: for untagged videos."""
    return "bt709" if untagged and rule == "bt709-hd" and height >= HD_LINES else None
