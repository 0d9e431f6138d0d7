"""Read the properties of a video file from ffmpeg's messages: pip installs an ffmpeg without ffprobe."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import ffmpeg

from lgd.preprocessing.video.ffmpeg_child import run
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.rejections import Limits, Rejected

# Containers that hold one video in one file. No other container is opened, whatever the file name: playlists and
# scripts (hls, dash, concat, sdp, imf, ...) refer to other files and addresses, and image lists to many files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,gif,rm,"
    "dv,mxf,gxf,nut,wtv,mjpeg,yuv4mpegpipe"
)
CONTAINER = re.compile(r"^\[info\] Input #0, (.+), from ")
STREAM = re.compile(r"^\[info\]\s+Stream #0:(\d+)\S*: (\w+): (.*)$")
FRAME_SIZE = re.compile(r", (\d{1,9})x(\d{1,9})(?:,? \[?SAR (\d+):(\d+)|[ ,]|$)")
STILL = re.compile(r"\((attached pic|still image|timed thumbnails)\)")
CLOCK = r"(\d+):(\d\d):(\d\d(?:\.\d+)?)"
FILE_DURATION = re.compile(rf"^\[info\]\s+Duration: {CLOCK}")
STREAM_DURATION = re.compile(rf"^\[info\]\s+DURATION\s*: {CLOCK}")  # Matroska's statistics
ROTATION = re.compile(r"^\[info\]\s+display ?matrix: rotation of (-?[\d.]+) degrees", re.IGNORECASE)

FIRST_FRAME = re.compile(r"Parsed_showinfo.* n: *0 pts: *(-?\d+) ")


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a video file and of its best video stream, as ffmpeg and the container declare them.

    index: of the stream in the file; width, height: pixels as stored; sample_aspect: width of a pixel over its height;
    rotation: degrees; fps: average frames per second, None if unknown; duration_s: seconds, None if not declared;
    exact_duration: the duration is that of this stream, not that of the longest stream in the file.
    """

    container: str
    index: int
    codec: str
    width: int
    height: int
    sample_aspect: Fraction
    rotation: float
    fps: float | None
    duration_s: float | None
    exact_duration: bool


def video_input(video: int, limits: Limits, **options: object) -> ffmpeg.nodes.FilterableStream:
    """Return the open file as ffmpeg's input, restricted so that it cannot open other files or addresses."""
    return ffmpeg.input(
        f"file:/dev/fd/{video}",
        protocol_whitelist="file",
        format_whitelist=CONTAINERS,
        threads=1,
        flags="bitexact",
        max_pixels=2 * limits.pixels + 128 * 128,  # decoders pad to full blocks; `decode` checks the exact limit
        **options,
    )


def command_line(verbosity: str, output: ffmpeg.nodes.OutputStream) -> list[str]:
    """Return ffmpeg's arguments; every message is a line of its own that starts with its level."""
    return ["-hide_banner", "-nostdin", "-nostats", "-loglevel", f"repeat+level+{verbosity}", *output.get_args()]


def probe(video: int, stream_durations_s: Mapping[int, float], limits: Limits) -> SourceInfo:
    """Read the properties of an open video file.

    stream_durations_s: seconds by stream index, as far as `read_container` found them. The best video stream is the
    default one, else the one with the most pixels, else the first; still images are not video streams.
    Raises Rejected ("unreadable", "no-video", or the reason of a limit).
    """
    log = FfmpegLog()
    arguments = command_line("info", video_input(video, limits).output("-", format="null"))
    without_output = arguments[: arguments.index("-i") + 2]  # ffmpeg describes the input, then fails without an output
    run(without_output, video, limits, log=log, output=lambda data: None)
    lines = list(log.lines())
    container = next((match[1] for line in lines if (match := CONTAINER.match(line))), None)
    if container is None:
        raise Rejected("unreadable", f"not a video file of a supported format ({log.first_error()})")
    kinds: set[str] = set()
    best: tuple[tuple[bool, int, int], SourceInfo] | None = None
    file_duration = _first_seconds(FILE_DURATION, lines)
    for match, block in _streams(lines):
        index, kind, description = int(match[1]), match[2], match[3]
        kinds.add(kind.lower())
        size = FRAME_SIZE.search(description)
        if kind != "Video" or STILL.search(description) or not size:
            continue
        own = stream_durations_s.get(index, _first_seconds(STREAM_DURATION, block))
        rate = re.search(r", ([\d.]+)(k?) fps", description)
        rotation = next((match[1] for line in block if (match := ROTATION.match(line))), "0")
        source = SourceInfo(
            container=container,
            index=index,
            codec=re.split(r"[ ,]", description)[0],
            width=int(size[1]),
            height=int(size[2]),
            sample_aspect=Fraction(int(size[3] or 1) or 1, int(size[4] or 1) or 1),
            rotation=float(rotation),
            fps=float(rate[1]) * (1000 if rate[2] else 1) if rate else None,
            duration_s=file_duration if own is None else own,
            exact_duration=own is not None,
        )
        rank = ("(default)" in description, source.width * source.height, -index)
        if best is None or rank > best[0]:
            best = (rank, source)
    if best is None:
        raise Rejected("no-video", f"the file has no video stream (its streams: {', '.join(sorted(kinds)) or 'none'})")
    return best[1]


def first_timestamp(video: int, index: int, limits: Limits) -> int:
    """Return the time of the first frame of a stream, in the stream's time base.

    Raises Rejected ("decoder-error") if the stream has no frame.
    """
    log = FfmpegLog()
    stream = video_input(video, limits, copyts=None)[str(index)].filter("showinfo")
    run(
        command_line("info", stream.output("-", format="null", vframes=1)),
        video,
        limits,
        log=log,
        output=lambda data: None,
    )
    found = next((match for line in log.lines() if (match := FIRST_FRAME.search(line))), None)
    if found is None:
        raise Rejected("decoder-error", log.first_error())
    return int(found[1])


def _streams(lines: list[str]) -> list[tuple[re.Match[str], list[str]]]:
    """Return the line of each input stream with the lines that belong to it."""
    streams: list[tuple[re.Match[str], list[str]]] = []
    for line in lines:
        if match := STREAM.match(line):
            streams.append((match, []))
        elif streams:
            streams[-1][1].append(line)
    return streams


def _first_seconds(pattern: re.Pattern[str], lines: list[str]) -> float | None:
    """Return the seconds in the first line that matches; None if ffmpeg only estimates them from the bit rate."""
    if any("Estimating duration from bitrate" in line for line in lines):
        return None
    clock = next((match for line in lines if (match := pattern.match(line))), None)
    return None if clock is None else int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
