"""Decode a video to upright RGB frames at a constant rate with ffmpeg.

A broken or hostile file can only be rejected: ffmpeg_child sets the limits, and probe the formats that are opened.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
from ffmpeg.nodes import FilterableStream

from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.ffmpeg_child import open_video, run
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.pixmaps import PpmReader
from lgd.preprocessing.video.probe import SourceInfo, command_line, first_timestamp, probe, video_input
from lgd.preprocessing.video.rejections import Limits, Rejected

# These containers have an exact time index: a seek to a moment never ends after it.
SEEKABLE = ("mov,mp4", "matroska")
SEEK_MARGIN_S = 10.0
# Fraction of a frame: rounding in the annotation (0.04 for 1/25 s) must not drop or add a frame.
FRAME_TOLERANCE = 1e-3
# Maximum fraction of damaged frames: in a video with more, too much of the content was invented by error concealment.
MAX_DAMAGED = 0.1
# Gives the same pixels on every machine: no approximate arithmetic, chroma interpolated in both directions.
SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
DAMAGE = re.compile(
    r"corrupt decoded frame|corrupt input packet|Error submitting packet to decoder|Error while decoding stream"
)


@dataclass(frozen=True)
class Frames:
    """A decoded video. rgb: uint8, T x H x W x 3, at `fps` frames per second (full range, square pixels).

    The other fields describe the source: width, height: pixels of a stored frame, before rotation; rotation: degrees,
    as reported by ffmpeg; source_fps: average, None if unknown; damaged: errors that the decoder reported, usually one
    per damaged frame.
    """

    rgb: np.ndarray
    fps: float
    width: int
    height: int
    rotation: float
    source_fps: float | None
    codec: str
    damaged: int


def decode(
    path: Path,
    fps: float,
    short_side: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: Limits = Limits(),
    min_frames: int = 2,
) -> Frames:
    """Decode a video to upright frames at a constant rate.

    fps: frames per second. Frame k shows the source k / fps seconds after its first frame; for sources with a different
    or variable frame rate, frames are repeated or dropped.
    short_side: pixels of the shorter side; the longer side keeps the displayed aspect ratio, rounded to a pixel.
    Nothing is cropped; alpha is dropped.
    start_s, end_s: keep the frames k with start_s <= k / fps < end_s, the same frames as in the complete video.
    min_frames: a video with fewer frames is rejected.

    Raises Rejected with one of the reasons in `rejections.REASONS`. A file shorter than it declares is "truncated": by
    any byte where the container has sizes (MP4, MOV, AVI, Matroska, WebM), else if more than 0.5 s and more than 5 %
    of the declared duration are missing (1 s and 10 % where only the duration of the longest stream is known);
    containers that declare nothing (MPEG-TS, raw streams) cannot be checked. A video that ends more than 0.5 s and more
    than 5 % before end_s is "too-short". If the decoder reports errors in more than 10 % of the frames, the video is a
    "decoder-error"; with fewer, the frames are used as the decoder conceals them, and the errors are counted in
    `Frames.damaged`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with open_video(path) as video:
        container = read_container(video)
        if container.truncation:
            raise Rejected("truncated", container.truncation)
        source = probe(video, container.durations_s, limits)
        _check_sizes(source, short_side, limits)
        log = FfmpegLog({"damage": DAMAGE})
        reader = PpmReader(limits)
        command = _command(video, source, rate, short_side=short_side, start_s=start_s, end_s=end_s, limits=limits)
        status = run(command, video, limits, log=log, output=reader.feed)
    if status != 0:
        raise Rejected("too-large" if _over_limit(log) else "decoder-error", log.first_error())
    rgb = reader.frames()
    damaged, decoded = log.counts.get("damage", 0), _source_frames(log)
    if damaged > MAX_DAMAGED * decoded:
        raise Rejected("decoder-error", f"the decoder reported {damaged} errors in {decoded} frames")
    seconds = len(rgb) / float(rate)
    if end_s is not None:
        _check_interval(start_s or 0.0, end_s, seconds)
    elif start_s is None:
        _check_complete(source, seconds)
    if len(rgb) < min_frames:
        required = f"the required {min_frames} frames at {float(rate):g} frames per second"
        raise Rejected("too-short", f"the video has {len(rgb)} of {required}")
    return Frames(rgb, float(rate), source.width, source.height, source.rotation, source.fps, source.codec, damaged)


def decode_each_frame(
    path: Path,
    fps: float,
    short_side: int,
    *,
    on_frame: Callable[[np.ndarray], None],
    limits: Limits = Limits(),
) -> None:
    """Decode a video that `decode` accepts and call `on_frame` with each of its frames; no frame is kept.

    short_side: pixels; the number of frames does not depend on it. on_frame: called with uint8 H x W x 3, RGB; its time
    counts toward the time limits. Raises Rejected as `decode`, but checks neither truncation nor damage.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with open_video(path) as video:
        source = probe(video, read_container(video).durations_s, limits)
        _check_sizes(source, short_side, limits)
        log = FfmpegLog()
        command = _command(video, source, rate, short_side=short_side, start_s=None, end_s=None, limits=limits)
        if run(command, video, limits, log=log, output=PpmReader(limits, on_frame).feed):
            raise Rejected("decoder-error", log.first_error())


def _command(
    video: int,
    source: SourceInfo,
    rate: Fraction,
    *,
    short_side: int,
    start_s: float | None,
    end_s: float | None,
    limits: Limits,
) -> list[str]:
    """Return ffmpeg's arguments: write the video stream to standard output as PPM images, which contain their size."""
    stream = _resized(_constant_rate(video, source, rate, start_s=start_s, end_s=end_s, limits=limits), short_side)
    output = stream.output("pipe:1", format="image2pipe", vcodec="ppm", threads=1, filter_complex_threads=1)
    return command_line("verbose", output)


def _constant_rate(
    video: int, source: SourceInfo, rate: Fraction, *, start_s: float | None, end_s: float | None, limits: Limits
) -> FilterableStream:
    """Return the frames to keep, at the constant rate and in their stored size."""
    seek: dict[str, object] = {}
    first = "STARTPTS"
    if start_s is not None and start_s > 2 * SEEK_MARGIN_S and source.container.startswith(SEEKABLE):
        # Seek to before the start and keep the file's timestamps, by which the frames to keep are selected below.
        seek = {"ss": f"{start_s - SEEK_MARGIN_S:.6f}", "noaccurate_seek": None}
        first = str(first_timestamp(video, source.index, limits))
    stream = video_input(video, limits, copyts=None, **seek)[str(source.index)]
    stream = stream.filter("setpts", f"PTS-{first}").filter("fps", f"{rate.numerator}/{rate.denominator}")
    if start_s is not None:
        stream = stream.filter("trim", start_pts=_first_frame_at(rate, start_s))
    if end_s is not None:
        stream = stream.filter("trim", end_pts=_first_frame_at(rate, end_s))
    return stream.filter("setpts", "N")  # numbered from 0: no version of ffmpeg repeats or drops frames at output


def _resized(stream: FilterableStream, short_side: int) -> FilterableStream:
    """Resize to the displayed aspect ratio and convert to RGB."""
    landscape = "gte(iw*sar,ih)"
    return stream.filter(
        "scale",
        w=f"if({landscape},max(1,round({short_side}*iw*sar/ih)),{short_side})",
        h=f"if({landscape},{short_side},max(1,round({short_side}*ih/(iw*sar))))",
        flags=SCALER,
    ).filter("format", "rgb24")


def resize_seconds(path: Path, fps: float, short_side: int, *, limits: Limits = Limits()) -> float:
    """Measure the seconds that `decode` spends on resizing a complete video and converting it to RGB (one step).

    The result is the difference between two ffmpeg runs, with and without this step, whose frames are discarded. Each
    runs once, so the difference can be negative. Raises Rejected for a video that cannot be decoded.
    """
    rate = Fraction(fps).limit_denominator(1001)
    seconds = []
    with open_video(path) as video:
        source = probe(video, read_container(video).durations_s, limits)
        kept = _constant_rate(video, source, rate, start_s=None, end_s=None, limits=limits)
        for stream in (kept, _resized(kept, short_side)):
            log = FfmpegLog()
            output = stream.output("-", format="null", threads=1, filter_complex_threads=1)
            start = time.perf_counter()
            if run(command_line("error", output), video, limits, log=log, output=lambda data: None):
                raise Rejected("decoder-error", log.first_error())
            seconds.append(time.perf_counter() - start)
    return seconds[1] - seconds[0]


def _first_frame_at(rate: Fraction, seconds: float) -> int:
    """Return the number of the first frame of the constant rate at or after a moment."""
    return ceil(seconds * float(rate) - FRAME_TOLERANCE)


def _check_sizes(source: SourceInfo, short_side: int, limits: Limits) -> None:
    """Raise Rejected ("too-large") if the stored or the resized frames exceed the pixel limit."""
    if source.width * source.height > limits.pixels:
        raise Rejected("too-large", f"{source.width} x {source.height} pixels; the limit is {limits.pixels} pixels")
    displayed = source.width * source.sample_aspect
    ratio = max(displayed / source.height, source.height / displayed)
    if ratio * short_side * short_side > limits.pixels:
        raise Rejected(
            "too-large",
            f"{source.width} x {source.height} pixels, resized to a short side of {short_side}, "
            f"exceed the limit of {limits.pixels} pixels",
        )


def _check_complete(source: SourceInfo, decoded_s: float) -> None:
    """Raise Rejected ("truncated") if the decoded duration is much shorter than the declared one."""
    if source.duration_s is None:
        return
    seconds, fraction = (0.5, 0.05) if source.exact_duration else (1.0, 0.1)
    if decoded_s < source.duration_s - max(seconds, fraction * source.duration_s):
        raise Rejected("truncated", f"only {decoded_s:.2f} s of the declared {source.duration_s:.2f} s were decoded")


def _check_interval(start_s: float, end_s: float, decoded_s: float) -> None:
    """Raise Rejected ("too-short") if the video ends long before the annotated interval does."""
    if decoded_s < end_s - start_s - max(0.5, 0.05 * (end_s - start_s)):
        interval = f"from {start_s:g} s to {end_s:g} s"
        raise Rejected("too-short", f"the video contains only {decoded_s:.2f} s of the annotated interval {interval}")


def _over_limit(log: FfmpegLog) -> bool:
    """Return whether ffmpeg failed because of its memory limit, or because frames exceed the pixel limit mid-video."""
    return any("Cannot allocate memory" in line or "exceeds specified max pixel" in line for line in log.lines())


def _source_frames(log: FfmpegLog) -> int:
    """Return the number of source frames decoded, from ffmpeg's final summary."""
    for line in log.lines():
        if match := re.search(r"\(video\):.*?(\d+) frames decoded", line):
            return int(match[1])
    return 0
