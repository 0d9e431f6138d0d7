"""A video -> upright RGB frames at a constant rate, by an ffmpeg child that a broken or hostile file cannot misuse."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import ffmpeg
import numpy as np

from preprocessing.containers import Declared, read_declared
from preprocessing.ffmpeg_child import (
    REASONS,
    Limits,
    Log,
    Rejected,
    ffmpeg_binary,
    ffmpeg_version,
    open_video,
    run,
)

__all__ = ["REASONS", "Frames", "Limits", "Rejected", "decode", "ffmpeg_binary", "ffmpeg_version"]

# Containers that hold one video in one file. What is not here does not open, whatever the file is called: playlists
# and scripts (hls, dash, concat, sdp, imf, ...), which name other files and addresses, and lists of images.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,gif,rm,"
    "dv,mxf,gxf,nut,wtv,mjpeg,yuv4mpegpipe"
)
# These have an exact index of time, so that a seek to before a moment does not land behind it.
SEEKABLE = ("mov,mp4", "matroska")
# A frame interval's worth of rounding in the annotation (0.04 s written for 1/25 s) must not cost or add a frame.
TICK_TOLERANCE = 1e-6
SEEK_MARGIN_S = 10.0
# Damaged beyond this share of its frames, a video shows mostly what the decoder made up.
MAX_DAMAGED = 0.1
# The same pixels on every machine: no approximate arithmetic, chroma interpolated in both directions.
SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"

DAMAGE = re.compile(
    r"corrupt decoded frame|corrupt input packet|Error submitting packet to decoder|Error while decoding stream"
)
STREAM = re.compile(r"^\[info\]\s+Stream #0:(\d+)\S*: (\w+): (.*)$")
PICTURE = re.compile(r", (\d{1,9})x(\d{1,9})(?: \[SAR (\d+):(\d+)|, SAR (\d+):(\d+)|[ ,]|$)")
CLOCK = r"(\d+):(\d\d):(\d\d(?:\.\d+)?)"


@dataclass(frozen=True)
class Frames:
    """The decoded video. rgb: uint8, T x H x W x 3, at `fps` frames per second (full range, square pixels).

    The rest says where it came from: width, height: pixels of a stored frame, before rotation; rotation: degrees, as
    ffmpeg reports it; source_fps: average, None if unknown; damaged: frames whose decoding reported errors.
    """

    rgb: np.ndarray
    fps: float
    width: int
    height: int
    rotation: float
    source_fps: float | None
    codec: str
    damaged: int


@dataclass(frozen=True)
class _Source:
    """What ffmpeg says about the file. index: of the video stream; duration_s: declared, None if it is not."""

    container: str
    index: int
    codec: str
    width: int
    height: int
    sample_aspect: Fraction
    rotation: float
    fps: float | None
    duration_s: float | None
    of_stream: bool  # the duration is the video stream's own, not that of the longest stream


def decode(
    path: Path,
    fps: float,
    short_side: int,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    min_frames: int = 2,
) -> Frames:
    """Decode a video to upright frames at a constant rate.

    fps: frames per second. Frame k shows the source at k / fps seconds of the file's clock (0 is where a player
    starts); sources with another or a varying rate have frames repeated or left out.
    short_side: pixels of the shorter side; the other keeps the displayed aspect ratio, rounded to a whole pixel.
    Nothing is cropped; alpha is dropped.
    start_s, end_s: keep the frames with start_s <= k / fps < end_s.

    Raises Rejected with one of REASONS. The default limits are documented in `Limits`. A file shorter than it
    declares is "truncated": exactly so where the container has sizes (MP4, MOV, AVI, Matroska, WebM), else if more
    than 0.5 s and 5 % of the declared duration is missing (1 s and 10 % where only the longest stream's duration is
    known); containers that declare nothing (MPEG-TS, raw streams) cannot be checked. A video that ends that much
    before end_s is "too-short".
    """
    rate = Fraction(fps).limit_denominator(1001)
    with open_video(path) as video:
        declared = read_declared(video)
        if declared.cut:
            raise Rejected("truncated", declared.cut)
        source = _probe(video, declared, limits)
        _check_sizes(source, short_side, limits)
        log = Log({"damage": DAMAGE})
        pictures = _Pictures(limits)
        status = run(_command(video, source, rate, short_side, start_s, end_s, limits), video, limits, log, pictures)
    if status != 0:
        reason = "too-large" if _out_of_memory(log) else "decoder-error"
        raise Rejected(reason, log.complaint())
    rgb = pictures.frames()
    damaged = log.counts.get("damage", 0)
    if damaged > MAX_DAMAGED * _frames_decoded(log, len(rgb)):
        raise Rejected("decoder-error", f"{damaged} of {_frames_decoded(log, len(rgb))} frames are damaged")
    if start_s is None and end_s is None:
        _check_whole(source, len(rgb) / float(rate))
    if end_s is not None:
        _check_reaches(end_s, start_s or 0.0, len(rgb) / float(rate))
    if len(rgb) < min_frames:
        raise Rejected("too-short", f"{len(rgb)} frames at {float(rate):g} frames per second, {min_frames} are needed")
    return Frames(rgb, float(rate), source.width, source.height, source.rotation, source.fps, source.codec, damaged)


def _input(video: int, limits: Limits, **options: object) -> ffmpeg.nodes.FilterableStream:
    return ffmpeg.input(
        f"file:/dev/fd/{video}",
        protocol_whitelist="file",
        format_whitelist=CONTAINERS,
        threads=1,
        flags="bitexact",
        max_pixels=limits.pixels,
        **options,
    )


def _global_options(verbosity: str) -> list[str]:
    return ["-hide_banner", "-nostdin", "-nostats", "-loglevel", f"repeat+level+{verbosity}"]


def _command(
    video: int,
    source: _Source,
    rate: Fraction,
    short_side: int,
    start_s: float | None,
    end_s: float | None,
    limits: Limits,
) -> list[str]:
    """ffmpeg's arguments: the best video stream as portable pixmaps, which each say their size, on standard output."""
    options: dict[str, object] = {}
    if start_s is not None and start_s > 2 * SEEK_MARGIN_S and source.container.startswith(SEEKABLE):
        # Land before the start and keep the file's clock: which frames are kept is decided by their times below.
        options = {"ss": f"{start_s - SEEK_MARGIN_S:.6f}", "noaccurate_seek": None}
    stream = _input(video, limits, copyts=None, start_at_zero=None, **options)[str(source.index)]
    stream = stream.filter("fps", f"{rate.numerator}/{rate.denominator}")
    if start_s is not None or end_s is not None:
        stream = stream.filter("trim", **_ticks(rate, start_s, end_s))
    landscape = "gte(iw*sar,ih)"
    stream = (
        stream.filter("setpts", "N")  # numbered from 0, so that no ffmpeg repeats or drops frames on output
        .filter(
            "scale",
            w=f"if({landscape},max(1,round({short_side}*iw*sar/ih)),{short_side})",
            h=f"if({landscape},{short_side},max(1,round({short_side}*ih/(iw*sar))))",
            flags=SCALER,
        )
        .filter("format", "rgb24")
    )
    output = stream.output("pipe:1", format="image2pipe", vcodec="ppm", threads=1, filter_complex_threads=1)
    return [*_global_options("verbose"), *output.get_args()]


def _ticks(rate: Fraction, start_s: float | None, end_s: float | None) -> dict[str, int]:
    """The trim filter's first frame and the one behind the last, counted in frames of the constant rate."""
    ticks = {}
    if start_s is not None:
        ticks["start_pts"] = _tick(rate, start_s)
    if end_s is not None:
        ticks["end_pts"] = _tick(rate, end_s)
    return ticks


def _tick(rate: Fraction, seconds: float) -> int:
    """The first frame at or after a moment."""
    return ceil(float(seconds * rate) - TICK_TOLERANCE)


class _Pictures:
    """Collects portable pixmaps from a pipe into one buffer of pixels; enforces the limits on what is kept."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size: tuple[int, int] | None = None  # width, height
        self.pixels = bytearray()
        self.header = b""
        self.wanted = 0  # bytes of the present picture still to come

    def __call__(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self.wanted:
                self.pixels += view[: self.wanted]
                taken = min(len(view), self.wanted)
                self.wanted -= taken
                view = view[taken:]
            else:
                view = self._read_header(view)

    def _read_header(self, view: memoryview) -> memoryview:
        """Take up to the third line end: "P6\\n<width> <height>\\n255\\n"."""
        self.header += bytes(view[:64])
        parts = self.header.split(b"\n", 3)
        if len(parts) < 4:
            if len(self.header) > 64:
                raise Rejected("decoder-error", "ffmpeg's output is not a picture")
            return view[64:]
        found = re.fullmatch(rb"P6 (\d{1,9}) (\d{1,9}) 255", b" ".join(parts[:3]))
        if not found:
            raise Rejected("decoder-error", "ffmpeg's output is not a picture")
        size = (int(found[1]), int(found[2]))
        if self.size not in (None, size):
            raise Rejected("decoder-error", "the shape of the picture changes in the middle of the video")
        self.size = size
        self.wanted = size[0] * size[1] * 3
        if len(self.pixels) // self.wanted >= self.limits.frames:
            raise Rejected("too-large", f"more than {self.limits.frames} frames")
        if len(self.pixels) + self.wanted > self.limits.frame_bytes:
            raise Rejected("too-large", f"its resized frames are more than {self.limits.frame_bytes} bytes")
        rest = view[min(len(view), 64) - len(parts[3]) :]
        self.header = b""
        return rest

    def frames(self) -> np.ndarray:
        """uint8, T x H x W x 3."""
        if self.wanted:
            raise Rejected("decoder-error", "ffmpeg's output ends in the middle of a picture")
        width, height = self.size or (1, 1)
        return np.frombuffer(self.pixels, np.uint8).reshape(-1, height, width, 3)


def _probe(video: int, declared: Declared, limits: Limits) -> _Source:
    """What ffmpeg says about the file and its best video stream: the default one, else the one of most pixels."""
    log = Log()
    arguments = [*_global_options("info"), *_input(video, limits).output("-", format="null").get_args()[:-3]]
    run(arguments, video, limits, log, lambda output: None)
    lines = list(log.lines())
    container = next((found[1] for line in lines if (found := re.match(r"\[info\] Input #0, (.+), from ", line))), None)
    if container is None:
        raise Rejected("unreadable", f"not a video file of a known kind ({log.complaint()})")
    found = [(at, match) for at, line in enumerate(lines) if (match := STREAM.match(line))]
    candidates = []
    for (at, match), (behind, _) in zip(found, [*found[1:], (len(lines), None)], strict=True):
        picture = PICTURE.search(match[3])
        still = re.search(r"\((attached pic|still image|timed thumbnails)\)", match[3])
        if match[2] == "Video" and picture and not still:
            width, height = int(picture[1]), int(picture[2])
            candidates.append((("(default)" in match[3], width * height, -int(match[1])), match, lines[at:behind]))
    if not candidates:
        kinds = sorted({match[2].lower() for _, match in found})
        raise Rejected("no-video", f"no video stream (streams: {', '.join(kinds) or 'none'})")
    _, match, block = max(candidates, key=lambda candidate: candidate[0])
    return _source(container, match, block, lines, declared)


def _source(container: str, match: re.Match[str], block: list[str], lines: list[str], declared: Declared) -> _Source:
    index, description = int(match[1]), match[3]
    picture = PICTURE.search(description)
    assert picture
    aspect = [int(part) for part in picture.groups()[2:] if part is not None] or [1, 1]
    text = "\n".join(block)
    rotation = re.search(r"rotation of (-?[\d.]+) degrees", text)
    rate = re.search(r", ([\d.]+)(k?) fps", description)
    of_stream = declared.durations_s.get(index)
    if of_stream is None:
        of_stream = _seconds(re.search(rf"^\[info\]\s+DURATION\s*: {CLOCK}", text, re.M))
    of_file = _seconds(re.search(rf"^\[info\]\s+Duration: {CLOCK}", "\n".join(lines), re.M))
    if any("Estimating duration from bitrate" in line for line in lines):
        of_file = None  # a guess, not a declaration
    return _Source(
        container=container,
        index=index,
        codec=description.split(" ")[0].rstrip(","),
        width=int(picture[1]),
        height=int(picture[2]),
        sample_aspect=Fraction(aspect[0] or 1, aspect[1] or 1),
        rotation=float(rotation[1]) if rotation else 0.0,
        fps=float(rate[1]) * (1000 if rate[2] else 1) if rate else None,
        duration_s=of_file if of_stream is None else of_stream,
        of_stream=of_stream is not None,
    )


def _seconds(clock: re.Match[str] | None) -> float | None:
    return None if clock is None else int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])


def _check_sizes(source: _Source, short_side: int, limits: Limits) -> None:
    if source.width * source.height > limits.pixels:
        raise Rejected("too-large", f"{source.width} x {source.height} pixels, the limit is {limits.pixels}")
    displayed = source.width * source.sample_aspect
    ratio = max(displayed / source.height, source.height / displayed)
    if ratio * short_side * short_side > limits.pixels:
        raise Rejected(
            "too-large",
            f"{source.width} x {source.height} pixels with the short side at {short_side} "
            f"are over the limit of {limits.pixels}",
        )


def _check_whole(source: _Source, decoded_s: float) -> None:
    if source.duration_s is None:
        return
    seconds, share = (0.5, 0.05) if source.of_stream else (1.0, 0.1)
    if decoded_s < source.duration_s - max(seconds, share * source.duration_s):
        raise Rejected("truncated", f"{decoded_s:.2f} s decoded of {source.duration_s:.2f} s declared")


def _check_reaches(end_s: float, start_s: float, decoded_s: float) -> None:
    if decoded_s < end_s - start_s - max(0.5, 0.05 * (end_s - start_s)):
        raise Rejected(
            "too-short", f"annotated from {start_s:g} to {end_s:g} s, but it holds only {decoded_s:.2f} s of that"
        )


def _out_of_memory(log: Log) -> bool:
    return any("Cannot allocate memory" in line or "picture size" in line.lower() for line in log.lines())


def _frames_decoded(log: Log, otherwise: int) -> int:
    """Source frames decoded, from ffmpeg's closing summary."""
    for line in log.lines():
        if found := re.search(r"\(video\):.*?(\d+) frames decoded", line):
            return int(found[1])
    return otherwise
