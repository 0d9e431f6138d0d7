"""The filters that ffmpeg applies to a video: continuous times, a constant rate, one size, RGB; and their messages.

The filters are set up once, for the first frame, and stay the same if the format of the pictures changes midway
(`-reinit_filter 0`): ffmpeg would otherwise start new filters at the change, whose frames are numbered from 0 again.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from ffmpeg.nodes import FilterableStream

from lgd.preprocessing.video.colors import HD_LINES, UntaggedMatrix, color_matrix
from lgd.preprocessing.video.ffmpeg_input import video_input
from lgd.preprocessing.video.packets import MAX_GAP_S
from lgd.preprocessing.video.probe import SourceInfo, first_frame
from lgd.preprocessing.video.rejections import Limits, Rejected

# These containers have an exact time index: a seek to a moment never ends after it.
SEEKABLE = ("mov,mp4", "matroska")
SEEK_MARGIN_S = 10.0
# Fraction of a frame: rounding in the annotation (0.04 for 1/25 s) must not drop or add a frame.
FRAME_TOLERANCE = 1e-3
# A clock that goes back by more than this begins again; less is the wrong order of a few frames. So does one that goes
# forward by more than MAX_GAP_S between two frames; less is a picture that is shown for long.
MAX_BACK_S = 0.25
# Gives the same pixels on every machine: no approximate arithmetic, chroma interpolated in both directions.
SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
LANDSCAPE = "gte(iw*sar,ih)"

ORIENTED = re.compile(r"^\[info\]       display ?matrix: ", re.IGNORECASE)
PRINTED = re.compile(r"^\[Eval @ [^\]]*\] \[info\] (-?[\d.]+|-?nan)$")
CHANGE = re.compile(
    r"^\[graph 0 input [^\]]* @ [^\]]*\] \[\w+\] filter context - (.*), incoming frame - (.*) pts_time: (\S+)$"
)
PROPERTY = re.compile(r"(\w+): ([^\s,]+)")


@dataclass(frozen=True)
class FilterSettings:
    """How the frames of one video are filtered.

    rate: frames per second; short_side: pixels; untagged_matrix: see `colors`; start_s, end_s: the part of the video to
    keep, seconds."""

    rate: Fraction
    short_side: int
    untagged_matrix: UntaggedMatrix
    start_s: float | None = None
    end_s: float | None = None


def filtered(
    video: int, source: SourceInfo, settings: FilterSettings, *, limits: Limits, resize: bool = True
) -> FilterableStream:
    """Return the frames of an open video at a constant rate and, with `resize`, as RGB of one size.

    Raises Rejected ("decoder-error") if the video has no frame."""
    seek: dict[str, object] = {}
    first, size, matrix = "STARTPTS", None, color_matrix(source.untagged, source.height, settings.untagged_matrix)
    # A file whose clock begins again is longer than it declares: its frames are found by counting them.
    declared_s = source.duration_s if source.exact_duration and source.container.startswith(SEEKABLE) else None
    if settings.start_s is not None and 2 * SEEK_MARGIN_S < settings.start_s < (declared_s or 0.0):
        # Seek to before the start and keep the file's timestamps, by which the frames to keep are selected below.
        seek = {"ss": f"{settings.start_s - SEEK_MARGIN_S:.6f}", "noaccurate_seek": None}
        frame = first_frame(video, source.index, limits)
        first = str(frame.timestamp)
        size = resized_size(frame.width, frame.height, frame.sample_aspect, short_side=settings.short_side)
    stream = video_input(video, limits, copyts=None, reinit_filter=0, **seek)[str(source.index)]
    stream = _continuous(stream, 1 / (source.fps or float(settings.rate)), first)
    if resize and _resize_first(source, settings, limits):
        return _constant_rate(_resized(stream, settings.short_side, size, matrix=matrix), settings)
    stream = _constant_rate(stream, settings)
    return _resized(stream, settings.short_side, size, matrix=matrix) if resize else stream


def _continuous(stream: FilterableStream, usual_s: float, first: str) -> FilterableStream:
    """Count the times from 0, and continue them where the clock of the file begins again.

    The interval before a frame there is the last one between two frames, and `usual_s` if there was none. ffmpeg
    prints the time of the frame before and the jump, in seconds. first: time of the first frame of the file."""
    return stream.filter(
        "setpts",
        f"st(0,PTS-PREV_INPTS);"
        f"if(isnan(PREV_OUTPTS),st(1,{usual_s:.9f}/TB);PTS-{first},"
        f"if(between(ld(0)*TB,-{MAX_BACK_S},{MAX_GAP_S}),if(gt(ld(0),0),st(1,ld(0)));PREV_OUTPTS+ld(0),"
        f"print(PREV_OUTPTS*TB);print(ld(0)*TB);PREV_OUTPTS+round(ld(1))))",
    )


def _constant_rate(stream: FilterableStream, settings: FilterSettings) -> FilterableStream:
    """Repeat or drop frames to make their rate constant, and keep those from start_s until before end_s."""
    rate = settings.rate
    stream = stream.filter("fps", f"{rate.numerator}/{rate.denominator}")
    if settings.start_s is not None:
        stream = stream.filter("trim", start_pts=_first_frame_at(rate, settings.start_s))
    if settings.end_s is not None:
        stream = stream.filter("trim", end_pts=_first_frame_at(rate, settings.end_s))
    return stream.filter("setpts", "N")  # numbered from 0: no version of ffmpeg repeats or drops frames at output


def _first_frame_at(rate: Fraction, seconds: float) -> int:
    """Return the number of the first frame of the constant rate at or after a moment."""
    return ceil(seconds * float(rate) - FRAME_TOLERANCE)


def _resized(
    stream: FilterableStream, short_side: int, size: tuple[int, int] | None, *, matrix: str | None
) -> FilterableStream:
    """Resize to `size`, by default to the displayed aspect ratio of the first frame, and convert to RGB.

    matrix: of the colors, None for the one that each frame declares."""
    width: int | str = f"if({LANDSCAPE},max(1,round({short_side}*iw*sar/ih)),{short_side})"
    height: int | str = f"if({LANDSCAPE},{short_side},max(1,round({short_side}*ih/(iw*sar))))"
    if size is not None:
        width, height = size
    colors = {} if matrix is None else {"in_color_matrix": matrix}
    return stream.filter("scale", w=width, h=height, flags=SCALER, **colors).filter("format", "rgb24")


def resized_size(width: int, height: int, sample_aspect: Fraction, *, short_side: int) -> tuple[int, int]:
    """Return the width and height of the resized frames, pixels, computed as ffmpeg does it.

    width, height, sample_aspect: of an upright frame."""
    sar = float(sample_aspect)
    if width * sar >= height:
        return max(1, floor(short_side * width * sar / height + 0.5)), short_side
    return short_side, max(1, floor(short_side * height / (width * sar) + 0.5))


def _resize_first(source: SourceInfo, settings: FilterSettings, limits: Limits) -> bool:
    """Return whether the frames are resized before their rate is made constant: the result is the same.

    ffmpeg keeps all repetitions of a frame in memory at once. If they are resized before, they share one copy, but
    frames that are then dropped are resized as well."""
    aspect = max(source.width * source.sample_aspect / source.height, Fraction(1))
    frame_bytes = 3 * settings.short_side**2 * max(aspect, 1 / aspect)
    return bool(MAX_GAP_S * settings.rate * frame_bytes > limits.memory_bytes / 2)


@dataclass
class FilterMessages:
    """What ffmpeg's messages say about the filters of one run.

    jumps: where the clock of the file begins again: seconds from the first frame to the frame before, and by how many
    seconds the clock jumps; oriented: ffmpeg turns or mirrors the pictures."""

    source: SourceInfo
    untagged_matrix: UntaggedMatrix
    limits: Limits
    jumps: list[tuple[float, float]] = field(default_factory=list)
    oriented: bool = False
    _moment: float | None = None

    def add(self, line: str) -> None:
        """Read the next line. Raises Rejected if the format of the pictures changes to one that cannot be resized
        correctly ("decoder-error"), or to one over the limit on pixels ("too-large")."""
        if match := PRINTED.match(line):
            if self._moment is None:
                self._moment = float(match[1])
            else:
                self.jumps.append((self._moment, float(match[1])))
                self._moment = None
        elif match := CHANGE.match(line):
            self._check_change(*(dict(PROPERTY.findall(match[i])) for i in (1, 2)))
        elif ORIENTED.match(line):
            self.oriented = True

    def skipped_s(self) -> float:
        """Return the seconds by which the clock of the file jumped forward, in total."""
        return sum(by for _, by in self.jumps if by > 0)

    def _check_change(self, first: dict[str, str], frame: dict[str, str]) -> None:
        """first, frame: properties of the first frame and of the changed one, by ffmpeg's names."""
        width, height = int(frame["w"]), int(frame["h"])
        if width * height > self.limits.pixels:
            raise Rejected(
                "too-large",
                f"the pictures change from {first['w']} x {first['h']} to {width} x {height} pixels midway; "
                f"the limit is {self.limits.pixels} pixels",
            )
        if self.oriented:
            # The filters that turn and mirror the pictures read them in the format of the first one.
            raise Rejected(
                "decoder-error", f"a video that is displayed rotated changes midway: {_difference(first, frame)}"
            )
        if first.get("csp") != frame.get("csp") and not self._same_colors(frame.get("csp"), height):
            raise Rejected("decoder-error", f"the colors change midway: {_difference(first, frame)}")

    def _same_colors(self, matrix: str | None, height: int) -> bool:
        """Return whether the scaler converts frames with this matrix correctly, though it was set up for others."""
        untagged = matrix in (None, "unknown")
        if forced := color_matrix(self.source.untagged, self.source.height, self.untagged_matrix):
            return untagged or matrix == forced
        return not untagged or self.untagged_matrix == "bt601" or height < HD_LINES


def _difference(first: dict[str, str], frame: dict[str, str]) -> str:
    """Return what differs between two formats of pictures as text."""
    parts = []
    if (first["w"], first["h"]) != (frame["w"], frame["h"]):
        parts.append(f"{first['w']} x {first['h']} to {frame['w']} x {frame['h']} pixels")
    names = {"fmt": "pixel format", "csp": "color matrix", "range": "color range"}
    for name, words in names.items():
        if first.get(name) != frame.get(name):
            parts.append(f"{words} {first.get(name)} to {frame.get(name)}")
    return ", ".join(parts)
