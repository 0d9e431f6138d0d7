"""A video -> upright RGB frames at a constant rate, by an ffmpeg child that a broken or hostile file cannot misuse."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
from ffmpeg.nodes import FilterableStream

from lgd.preprocessing.video.containers import read_declared
from lgd.preprocessing.video.ffmpeg_child import FfmpegLog, open_video, run
from lgd.preprocessing.video.pixmaps import PpmReader
from lgd.preprocessing.video.probe import Source, command_line, first_timestamp, probe, video_input
from lgd.preprocessing.video.rejections import Limits, Rejected

# These containers have an exact index of time, so that a seek to before a moment does not land behind it.
SEEKABLE = ("mov,mp4", "matroska")
SEEK_MARGIN_S = 10.0
# Rounding in the annotation (0.04 written for 1/25 s) must not cost or add a frame.
TICK_TOLERANCE = 1e-3
# Damaged beyond this share of its frames, a video shows mostly what the decoder made up.
MAX_DAMAGED = 0.1
# The same pixels on every machine: no approximate arithmetic, chroma interpolated in both directions.
SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
DAMAGE = re.compile(
    r"corrupt decoded frame|corrupt input packet|Error submitting packet to decoder|Error while decoding stream"
)


@dataclass(frozen=True)
class Frames:
    """A decoded video. rgb: uint8, T x H x W x 3, at `fps` frames per second (full range, square pixels).

    The rest says where it came from: width, height: pixels of a stored frame, before rotation; rotation: degrees, as
    ffmpeg reports it; source_fps: average, None if unknown; damaged: errors that the decoder reported, mostly one a
    frame.
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

    fps: frames per second. Frame k shows the source k / fps seconds after its first frame; sources with another or a
    varying rate have frames repeated or left out.
    short_side: pixels of the shorter side; the other keeps the displayed aspect ratio, rounded to a whole pixel.
    Nothing is cropped; alpha is dropped.
    start_s, end_s: keep the frames k with start_s <= k / fps < end_s: the same as cutting them from the whole.

    Raises Rejected with one of REASONS. The default limits are documented in `Limits`. A file shorter than it
    declares is "truncated": by any byte where the container has sizes (MP4, MOV, AVI, Matroska, WebM), else if more
    than 0.5 s and 5 % of the declared duration is missing (1 s and 10 % where only the longest stream's duration is
    known); containers that declare nothing (MPEG-TS, raw streams) cannot be checked. A video that ends 0.5 s and 5 %
    before end_s is "too-short". Where the decoder reports errors on more than 10 % of the frames, it is a
    "decoder-error"; below that the frames are taken as the decoder conceals them, and counted in `Frames.damaged`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with open_video(path) as video:
        declared = read_declared(video)
        if declared.cut:
            raise Rejected("truncated", declared.cut)
        source = probe(video, declared.durations_s, limits)
        _check_sizes(source, short_side, limits)
        log = FfmpegLog({"damage": DAMAGE})
        pictures = PpmReader(limits)
        command = _command(video, source, rate, short_side=short_side, start_s=start_s, end_s=end_s, limits=limits)
        status = run(command, video, limits, log=log, output=pictures.feed)
    if status != 0:
        raise Rejected("too-large" if _over_limit(log) else "decoder-error", log.complaint())
    rgb = pictures.frames()
    damaged, decoded = log.counts.get("damage", 0), _source_frames(log)
    if damaged > MAX_DAMAGED * decoded:
        raise Rejected("decoder-error", f"the decoder reports {damaged} errors in {decoded} frames")
    seconds = len(rgb) / float(rate)
    if end_s is not None:
        _check_reaches(start_s or 0.0, end_s, seconds)
    elif start_s is None:
        _check_whole(source, seconds)
    if len(rgb) < min_frames:
        raise Rejected("too-short", f"{len(rgb)} frames at {float(rate):g} frames per second, {min_frames} are needed")
    return Frames(rgb, float(rate), source.width, source.height, source.rotation, source.fps, source.codec, damaged)


def play(
    path: Path,
    fps: float,
    short_side: int,
    *,
    show: Callable[[np.ndarray], None],
    limits: Limits = Limits(),
) -> None:
    """Hands the frames that `decode` returns to `show` one after another, and keeps none: for a file that it took.

    short_side: pixels; the number of frames does not depend on it. show: takes uint8 H x W x 3, RGB, in the time that
    the limits leave. Raises Rejected."""
    rate = Fraction(fps).limit_denominator(1001)
    with open_video(path) as video:
        source = probe(video, read_declared(video).durations_s, limits)
        _check_sizes(source, short_side, limits)
        log = FfmpegLog()
        command = _command(video, source, rate, short_side=short_side, start_s=None, end_s=None, limits=limits)
        if run(command, video, limits, log=log, output=PpmReader(limits, show).feed):
            raise Rejected("decoder-error", log.complaint())


def _command(
    video: int,
    source: Source,
    rate: Fraction,
    *,
    short_side: int,
    start_s: float | None,
    end_s: float | None,
    limits: Limits,
) -> list[str]:
    """ffmpeg's arguments: the video stream as portable pixmaps, each of which says its size, on standard output."""
    stream = _resized(_constant_rate(video, source, rate, start_s=start_s, end_s=end_s, limits=limits), short_side)
    output = stream.output("pipe:1", format="image2pipe", vcodec="ppm", threads=1, filter_complex_threads=1)
    return command_line("verbose", output)


def _constant_rate(
    video: int, source: Source, rate: Fraction, *, start_s: float | None, end_s: float | None, limits: Limits
) -> FilterableStream:
    """The frames that are kept, as stored."""
    seek: dict[str, object] = {}
    first = "STARTPTS"
    if start_s is not None and start_s > 2 * SEEK_MARGIN_S and source.container.startswith(SEEKABLE):
        # Land before the start and keep the file's clock: which frames are kept is decided by their times below.
        seek = {"ss": f"{start_s - SEEK_MARGIN_S:.6f}", "noaccurate_seek": None}
        first = str(first_timestamp(video, source.index, limits))
    stream = video_input(video, limits, copyts=None, **seek)[str(source.index)]
    stream = stream.filter("setpts", f"PTS-{first}").filter("fps", f"{rate.numerator}/{rate.denominator}")
    if start_s is not None:
        stream = stream.filter("trim", start_pts=_tick(rate, start_s))
    if end_s is not None:
        stream = stream.filter("trim", end_pts=_tick(rate, end_s))
    return stream.filter("setpts", "N")  # numbered from 0: no version of ffmpeg repeats or drops frames on output


def _resized(stream: FilterableStream, short_side: int) -> FilterableStream:
    """In the displayed aspect ratio, as RGB."""
    landscape = "gte(iw*sar,ih)"
    return stream.filter(
        "scale",
        w=f"if({landscape},max(1,round({short_side}*iw*sar/ih)),{short_side})",
        h=f"if({landscape},{short_side},max(1,round({short_side}*ih/(iw*sar))))",
        flags=SCALER,
    ).filter("format", "rgb24")


def resize_seconds(path: Path, fps: float, short_side: int, *, limits: Limits = Limits()) -> float:
    """What the resizing of a whole video (and its conversion to RGB, which is the same step) costs `decode`, seconds:
    the difference between the same ffmpeg run with and without it, with the pictures thrown away.

    Measured once, so it can come out below 0. Raises Rejected for a video that cannot be decoded."""
    rate = Fraction(fps).limit_denominator(1001)
    seconds = []
    with open_video(path) as video:
        source = probe(video, read_declared(video).durations_s, limits)
        kept = _constant_rate(video, source, rate, start_s=None, end_s=None, limits=limits)
        for stream in (kept, _resized(kept, short_side)):
            log = FfmpegLog()
            output = stream.output("-", format="null", threads=1, filter_complex_threads=1)
            start = time.perf_counter()
            if run(command_line("error", output), video, limits, log=log, output=lambda pictures: None):
                raise Rejected("decoder-error", log.complaint())
            seconds.append(time.perf_counter() - start)
    return seconds[1] - seconds[0]


def _tick(rate: Fraction, seconds: float) -> int:
    """The first frame of the constant rate at or after a moment."""
    return ceil(seconds * float(rate) - TICK_TOLERANCE)


def _check_sizes(source: Source, short_side: int, limits: Limits) -> None:
    if source.width * source.height > limits.pixels:
        raise Rejected("too-large", f"{source.width} x {source.height} pixels, the limit is {limits.pixels}")
    displayed = source.width * source.sample_aspect
    ratio = max(displayed / source.height, source.height / displayed)
    if ratio * short_side * short_side > limits.pixels:
        raise Rejected(
            "too-large",
            f"{source.width} x {source.height} pixels resized to a short side of {short_side} "
            f"are over the limit of {limits.pixels}",
        )


def _check_whole(source: Source, decoded_s: float) -> None:
    if source.duration_s is None:
        return
    seconds, share = (0.5, 0.05) if source.of_stream else (1.0, 0.1)
    if decoded_s < source.duration_s - max(seconds, share * source.duration_s):
        raise Rejected("truncated", f"{decoded_s:.2f} s decoded of {source.duration_s:.2f} s declared")


def _check_reaches(start_s: float, end_s: float, decoded_s: float) -> None:
    if decoded_s < end_s - start_s - max(0.5, 0.05 * (end_s - start_s)):
        raise Rejected("too-short", f"annotated from {start_s:g} to {end_s:g} s, but holds {decoded_s:.2f} s of that")


def _over_limit(log: FfmpegLog) -> bool:
    """ffmpeg gave up for want of memory, or because pictures grew beyond the limit in the middle of the video."""
    return any("Cannot allocate memory" in line or "exceeds specified max pixel" in line for line in log.lines())


def _source_frames(log: FfmpegLog) -> int:
    """Source frames decoded, from ffmpeg's closing summary."""
    for line in log.lines():
        if found := re.search(r"\(video\):.*?(\d+) frames decoded", line):
            return int(found[1])
    return 0
