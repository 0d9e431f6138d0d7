"""Isolate the videos of a shard: an error that nobody foresaw rejects one video, unless the node is the reason.

An exception in the middle of a video has one of three reasons. The video: it is rejected, with a reason that is known.
The node, its disks or its network: the task fails, and is repeated. A mistake in lgd or in a library that this video
reveals: the video is rejected as an "internal-error", so that it does not block the others. A known video distinguishes
the last two: a node that fails on it as well is broken.
"""

import errno
import re
import tempfile
import traceback
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

import lgd
from lgd.pipeline.console.errors import NodeError, UserError
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard_tar import EncodedVideo
from lgd.preprocessing.video.rejections import Limits, Rejected

Encode = Callable[..., dict[str, EncodedVideo]]

# Errors of the operating system that a video can cause: by an offset or a size that it declares. All others (a full
# disk, a stale mount, a time-out, too many open files) are those of the node, except the next ones.
ERRORS_OF_A_VIDEO = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG, errno.ESPIPE, errno.E2BIG, errno.EDOM, errno.ERANGE)
# A part of a local file that the disk cannot read, while the folder can still be read.
ERRORS_OF_A_DISK_BLOCK = (errno.EIO, errno.EBADMSG, errno.ENODATA)
# These differ from run to run; the reason for a rejection must not.
VARYING = re.compile(r"\b0x[0-9a-fA-F]{6,}|(?<=/dev/fd/)\d+|\S*" + re.escape(TEMPORARY) + r"\w+")
MAX_DETAIL = 300  # characters of an error message
KNOWN, KNOWN_SIDE = "known", 64  # key and size of the known video: square, so that resized it is as small as any


def encode_isolated(
    encode: Encode,
    videos: Storage,
    video: Video,
    *,
    settings: Settings,
    streams: Iterable[str],
    counters: ShardCounters,
    limits: Limits,
) -> dict[str, EncodedVideo]:
    """Return `encode(videos, video, settings, ...)`, which is repeated once after an exception that nobody foresaw.

    Raises Rejected for a video that cannot be encoded, also because of such an exception ("internal-error", with the
    place in the code) or because the disk cannot read a part of it ("unreadable"). What is not caused by the video is
    an error: UserError, OSError for a file system that fails, and NodeError if the memory does not suffice, ffmpeg is
    killed from outside, or a known video cannot be encoded either."""
    arguments = {"streams": streams, "counters": counters, "limits": limits}
    folder = Path(videos.path(video.path)).parent if videos.local else None
    for attempt in range(2):
        try:
            return encode(videos, video, settings, **arguments)
        except (Rejected, UserError):
            raise
        except Exception as error:
            rejection = rejection_of(error, video.path, folder, limits=limits)
            if attempt:
                if rejection.reason == "internal-error":
                    _check_known_video(encode, rejection.detail, settings, streams=streams, limits=limits)
                raise rejection from error
    raise AssertionError


def rejection_of(error: Exception, path: str, folder: Path | None, *, limits: Limits = Limits()) -> Rejected:
    """Return the rejection of a video for an exception that nobody foresaw.

    path: of the video, for messages. folder: that contains the file, None if it is in an object store. Raises the error
    itself, or a NodeError, if the node and not the video is the reason."""
    if isinstance(error, OSError):
        if error.errno in ERRORS_OF_A_DISK_BLOCK and folder is not None:
            next(folder.iterdir(), None)  # raises OSError if the file system is broken as a whole
            return Rejected("unreadable", f"{error.strerror}: the disk cannot read a part of the file")
        if error.errno not in ERRORS_OF_A_VIDEO:
            raise error
    if _is_lack_of_memory(error) and not _can_allocate(limits.frame_bytes):
        raise NodeError(
            f"not enough memory for {path} ({describe(error)}): run fewer tasks per node, or use a node with "
            "more memory"
        ) from error
    if isinstance(error, RuntimeError) and "CUDA" in str(error):  # also if its memory is full
        raise NodeError(f"the GPU failed at {path} ({describe(error)})") from error
    return Rejected("internal-error", describe(error))


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, cv2.error):
        return getattr(error, "code", 0) == -4  # StsNoMem
    return isinstance(error, MemoryError)


def _can_allocate(size: int) -> bool:
    """Return whether the node has as much memory as a video may take: then this video asked for more."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True


def describe(error: Exception) -> str:
    """Return an exception on one line, the same on every run: its type, its message, and the last line of our code."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    message = VARYING.sub("...", " ".join(str(error).split()))
    message = "".join(character if character.isprintable() else "?" for character in message)[:MAX_DETAIL]
    return f"{name}{message and ': '}{message}{_place(error)}"


def _place(error: Exception) -> str:
    """Return the last line of our code that an exception passed, as ` (lgd/preprocessing/encode.py, line 12)`."""
    package = Path(lgd.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (path := Path(frame.filename)).is_relative_to(package):
            return f" (lgd/{path.relative_to(package)}, line {frame.lineno})"
    return ""


def _check_known_video(
    encode: Encode, detail: str, settings: Settings, *, streams: Iterable[str], limits: Limits
) -> None:
    """Raise NodeError if this node cannot encode a known video of two gray frames.

    detail: the error of the other video."""
    rate = Fraction(settings.fps).limit_denominator(1001)
    header = f"YUV4MPEG2 W{KNOWN_SIDE} H{KNOWN_SIDE} F{rate.numerator}:{rate.denominator} Ip A1:1 C420jpeg\n"
    picture = b"FRAME\n" + bytes([128]) * (KNOWN_SIDE**2 * 3 // 2)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        Path(folder, f"{KNOWN}.y4m").write_bytes(header.encode() + 2 * picture)
        known = Video(KNOWN, f"{KNOWN}.y4m", None, None, KNOWN)
        try:
            encode(Storage(folder), known, settings, streams=streams, counters=ShardCounters(), limits=limits)
        except Rejected:  # it is over a limit that the user has lowered
            pass
        except UserError:
            raise
        except Exception as error:
            raise NodeError(f"no video can be encoded on this node, check its installation: {detail}") from error
