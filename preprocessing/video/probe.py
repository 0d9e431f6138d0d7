"""What ffmpeg says about a video file before it is decoded. There is no ffprobe beside the ffmpeg that pip installs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import ffmpeg

from lgd.preprocessing.video.ffmpeg_child import FfmpegLog, run
from lgd.preprocessing.video.rejections import Limits, Rejected

# Containers that hold one video in one file. What is not here does not open, whatever the file is called: playlists
# and scripts (hls, dash, concat, sdp, imf, ...), which name other files and addresses, and lists of images.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,gif,rm,"
    "dv,mxf,gxf,nut,wtv,mjpeg,yuv4mpegpipe"
)
CONTAINER = re.compile(r"^\[info\] Input #0, (.+), from ")
STREAM = re.compile(r"^\[info\]\s+Stream #0:(\d+)\S*: (\w+): (.*)$")
PICTURE = re.compile(r", (\d{1,9})x(\d{1,9})(?:,? \[?SAR (\d+):(\d+)|[ ,]|$)")
STILL = re.compile(r"\((attached pic|still image|timed thumbnails)\)")
CLOCK = r"(\d+):(\d\d):(\d\d(?:\.\d+)?)"
FILE_DURATION = re.compile(rf"^\[info\]\s+Duration: {CLOCK}")
STREAM_DURATION = re.compile(rf"^\[info\]\s+DURATION\s*: {CLOCK}")  # Matroska's statistics
ROTATION = re.compile(r"^\[info\]\s+display ?matrix: rotation of (-?[\d.]+) degrees", re.IGNORECASE)

FIRST_FRAME = re.compile(r"Parsed_showinfo.* n: *0 pts: *(-?\d+) ")


@dataclass(frozen=True)
class Source:
    """A file and its best video stream, as ffmpeg and the container declare them.

    index: of the stream in the file; width, height: pixels as stored; sample_aspect: width of a pixel over its height;
    rotation: degrees; fps: average frames per second, None if unknown; duration_s: seconds, None if not declared;
    of_stream: the duration is this stream's own, not that of the longest stream in the file.
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
    of_stream: bool


def video_input(video: int, limits: Limits, **options: object) -> ffmpeg.nodes.FilterableStream:
    """The open file as ffmpeg's input, with everything closed that a hostile file could open."""
    return ffmpeg.input(
        f"file:/dev/fd/{video}",
        protocol_whitelist="file",
        format_whitelist=CONTAINERS,
        threads=1,
        flags="bitexact",
        max_pixels=2 * limits.pixels + 128 * 128,  # decoders pad to whole blocks; the exact limit is checked by name
        **options,
    )


def command_line(verbosity: str, output: ffmpeg.nodes.OutputStream) -> list[str]:
    """ffmpeg's arguments, with every message on a line of its own and its level in front."""
    return ["-hide_banner", "-nostdin", "-nostats", "-loglevel", f"repeat+level+{verbosity}", *output.get_args()]


def probe(video: int, stream_durations_s: Mapping[int, float], limits: Limits) -> Source:
    """What an open file declares. stream_durations_s: seconds by stream index, where the container was read for it.

    The best video stream is the default one, then the one of most pixels, then the first; still pictures are none.
    Raises Rejected ("unreadable", "no-video", or a limit's reason).
    """
    log = FfmpegLog()
    arguments = command_line("info", video_input(video, limits).output("-", format="null"))
    without_output = arguments[: arguments.index("-i") + 2]  # ffmpeg describes the input, then misses an output
    run(without_output, video, limits, log=log, output=lambda output: None)
    lines = list(log.lines())
    container = next((match[1] for line in lines if (match := CONTAINER.match(line))), None)
    if container is None:
        raise Rejected("unreadable", f"not a video file of a known kind ({log.complaint()})")
    kinds: set[str] = set()
    best: tuple[tuple[bool, int, int], Source] | None = None
    file_duration = _first(FILE_DURATION, lines)
    for match, block in _streams(lines):
        index, kind, description = int(match[1]), match[2], match[3]
        kinds.add(kind.lower())
        picture = PICTURE.search(description)
        if kind != "Video" or STILL.search(description) or not picture:
            continue
        own = stream_durations_s.get(index, _first(STREAM_DURATION, block))
        rate = re.search(r", ([\d.]+)(k?) fps", description)
        rotation = next((match[1] for line in block if (match := ROTATION.match(line))), "0")
        source = Source(
            container=container,
            index=index,
            codec=re.split(r"[ ,]", description)[0],
            width=int(picture[1]),
            height=int(picture[2]),
            sample_aspect=Fraction(int(picture[3] or 1) or 1, int(picture[4] or 1) or 1),
            rotation=float(rotation),
            fps=float(rate[1]) * (1000 if rate[2] else 1) if rate else None,
            duration_s=file_duration if own is None else own,
            of_stream=own is not None,
        )
        rank = ("(default)" in description, source.width * source.height, -index)
        if best is None or rank > best[0]:
            best = (rank, source)
    if best is None:
        raise Rejected("no-video", f"no video stream (streams: {', '.join(sorted(kinds)) or 'none'})")
    return best[1]


def first_timestamp(video: int, index: int, limits: Limits) -> int:
    """When the first frame of a stream is shown, in the stream's own unit of time. Raises Rejected without frames."""
    log = FfmpegLog()
    stream = video_input(video, limits, copyts=None)[str(index)].filter("showinfo")
    run(
        command_line("info", stream.output("-", format="null", vframes=1)),
        video,
        limits,
        log=log,
        output=lambda output: None,
    )
    found = next((match for line in log.lines() if (match := FIRST_FRAME.search(line))), None)
    if found is None:
        raise Rejected("decoder-error", log.complaint())
    return int(found[1])


def _streams(lines: list[str]) -> list[tuple[re.Match[str], list[str]]]:
    """Each input stream's line with the lines that belong to it."""
    streams: list[tuple[re.Match[str], list[str]]] = []
    for line in lines:
        if match := STREAM.match(line):
            streams.append((match, []))
        elif streams:
            streams[-1][1].append(line)
    return streams


def _first(pattern: re.Pattern[str], lines: list[str]) -> float | None:
    """Seconds in the first line that matches; None where ffmpeg only guesses them from the bit rate."""
    if any("Estimating duration from bitrate" in line for line in lines):
        return None
    clock = next((match for line in lines if (match := pattern.match(line))), None)
    return None if clock is None else int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
