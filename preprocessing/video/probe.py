"""Read the properties of a video file from ffmpeg's messages: pip installs an ffmpeg without ffprobe.

A file contains texts (titles, descriptions, chapters, lyrics) that ffmpeg prints between its own messages, and that may
look like them. The lines of the streams are recognized by a secret separator that ffmpeg puts between their fields.
"""

import re
import secrets
from dataclasses import dataclass, field
from fractions import Fraction

from lgd.preprocessing.video.colors import is_untagged
from lgd.preprocessing.video.containers import ContainerInfo
from lgd.preprocessing.video.ffmpeg_child import run
from lgd.preprocessing.video.ffmpeg_input import ACCEPTED, command_line, video_input
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.packets import StreamPackets, read_packets
from lgd.preprocessing.video.rejections import Limits, Rejected

KINDS = "Video|Audio|Subtitle|Data|Attachment|Unknown"
# Text of the file (a title, a chapter) is indented by four characters or more.
CONTAINER = re.compile(r"^\[info\] Input #0, (.+), from ")
STREAM = re.compile(rf"^\[info\] +Stream #0:(\d+)(?:\[0x([0-9a-f]+)\])?.*: ({KINDS}): (.*)$")
FILE_DURATION = re.compile(r"^\[info\]   Duration: (\S+), (?:start: (-?[\d.]+), )?bitrate: ")
STREAM_DURATION = re.compile(r"^\[info\] {7,}DURATION {8}: (\S+)$")  # Matroska's statistics
ROTATION = re.compile(r"^\[info\] {7,}display ?matrix: rotation of (-?[\d.]+) degrees", re.IGNORECASE)
ESTIMATE = re.compile(r"^\[[^\]]* @ [^\]]*\] \[warning\] Estimating duration from bitrate")
CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)$")
FRAME_SIZE = re.compile(r", (\d{1,9})x(\d{1,9})(?:,? \[?SAR (\d+):(\d+)|[ ,]|$)")
STREAM_START = re.compile(r", start (-?[\d.]+)")
STILL = re.compile(r"\((attached pic|still image|timed thumbnails)\)")
FIRST_FRAME = re.compile(
    r"^\[Parsed_showinfo[^\]]* @ [^\]]*\] \[info\] n: *0 pts: *(-?\d+) .* sar:(\d+)/(\d+) s:(\d+)x(\d+) "
)

# Of several streams, one with a single packet is a picture. One that has no second packet by the time that another has
# this many is taken for a picture, so that a long file is not read to its end.
PICTURE_AFTER = 2000


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a video file and of its best video stream, as ffmpeg and the container declare them.

    index: of the stream in the file; width, height: pixels as stored; sample_aspect: width of a pixel over its height;
    rotation: degrees; fps: average frames per second, None if unknown; duration_s: seconds, None if not declared;
    exact_duration: the duration is that of this stream, not that of the longest stream in the file;
    end_s: when the stream is declared to end on the clock of the file, seconds, None if only a duration is declared;
    untagged: the colors are YCbCr without a declared matrix;
    timed_streams: indexes of all streams that have times (video, audio, subtitles, data); complete: the file has all
    the bytes that its container declares.
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
    end_s: float | None = None
    untagged: bool = False
    timed_streams: tuple[int, ...] = ()
    complete: bool = False


@dataclass
class _Stream:
    """What ffmpeg prints about one stream. number: that the container gives to it, None if not printed."""

    index: int
    number: int | None
    kind: str
    description: str
    duration_tag: str | None = None
    rotation: float = 0.0


@dataclass
class _Description:
    """What ffmpeg prints about a file, collected line by line: the lines in between can be any number."""

    separator: str
    container: str | None = None
    durations: set[tuple[str, str]] = field(default_factory=set)
    estimated: bool = False
    streams: dict[int, _Stream] = field(default_factory=dict)
    current: _Stream | None = None

    def add(self, line: str) -> None:
        """Add the next line."""
        stream = STREAM.match(line)
        genuine = self.separator in line
        # Only streams without a picture or sound have no field after the codec.
        if stream and (genuine or (stream[3] not in ("Video", "Audio") and int(stream[1]) not in self.streams)):
            number = None if stream[2] is None else int(stream[2], 16)
            self.current = _Stream(int(stream[1]), number, stream[3], stream[4].replace(self.separator, ", "))
            self.streams[self.current.index] = self.current
        elif self.container is None and (match := CONTAINER.match(line)):
            self.container = match[1]
        elif match := FILE_DURATION.match(line):
            self.durations.add((match[1], match[2] or "0"))
        elif ESTIMATE.match(line):
            self.estimated = True
        elif self.current and self.current.duration_tag is None and (match := STREAM_DURATION.match(line)):
            self.current.duration_tag = match[1]
        elif self.current and (match := ROTATION.match(line)):
            self.current.rotation = float(match[1])

    def duration(self) -> tuple[float | None, float]:
        """Return the declared duration of the file and the start of its clock, in seconds.

        The duration is None if ffmpeg only estimates it from the bit rate, or if the file contains a second such line.
        """
        if len(self.durations) != 1 or self.estimated:
            return None, 0.0
        ((duration, start),) = self.durations
        return _seconds(duration), float(start)


def probe(video: int, container: ContainerInfo, limits: Limits) -> SourceInfo:
    """Read the properties of an open video file.

    container: what `read_container` found. The best video stream is one with more than one packet, then the default
    one, then the one with the most pixels, then the first; streams that are marked as still images are never taken.
    Raises Rejected ("unreadable", "no-video", or the reason of a limit).
    """
    found = _Description(f", {secrets.token_hex(8)} ")
    log = FfmpegLog(on_line=found.add)
    source = video_input(video, limits, dump_separator=found.separator)
    arguments = command_line("info", source.output("-", format="null"))
    without_output = arguments[: arguments.index("-i") + 2]  # ffmpeg describes the input, then fails without an output
    run(without_output, video, limits, log=log, output=lambda data: None)
    if found.container is None:
        error = log.first_error()
        because = "" if "whitelist" in error else f" ({error})"
        raise Rejected("unreadable", f"not a video file of a supported format: {ACCEPTED}{because}")
    videos = [
        stream
        for stream in found.streams.values()
        if stream.kind == "Video" and not STILL.search(stream.description) and FRAME_SIZE.search(stream.description)
    ]
    if not videos:
        kinds = ", ".join(sorted({stream.kind.lower() for stream in found.streams.values()})) or "none"
        raise Rejected("no-video", f"the file has no video stream (its streams: {kinds})")
    packets = _first_packets(video, videos, limits) if len(videos) > 1 else {}

    def rank(stream: _Stream) -> tuple[bool, bool, int, int]:
        moving = stream.index in packets and packets[stream.index].count > 1
        size = FRAME_SIZE.search(stream.description)
        pixels = int(size[1]) * int(size[2]) if size else 0
        return moving, "(default)" in stream.description, pixels, -stream.index

    return _source_info(found, max(videos, key=rank), container)


def _first_packets(video: int, streams: list[_Stream], limits: Limits) -> dict[int, StreamPackets]:
    """Return the first packets of several streams, enough to tell videos from pictures."""

    def enough(packets: dict[int, StreamPackets]) -> bool:
        counts = [stream.count for stream in packets.values()]
        return min(counts) > 1 or max(counts) > PICTURE_AFTER

    return read_packets(video, [stream.index for stream in streams], limits, enough=enough)


def _source_info(found: _Description, stream: _Stream, container: ContainerInfo) -> SourceInfo:
    """Return the properties of one video stream."""
    size = FRAME_SIZE.search(stream.description)
    assert found.container
    assert size
    rate = re.search(r", ([\d.]+)(k?) fps", stream.description)
    duration, start = found.duration()
    if shown := STREAM_START.search(stream.description):
        start = float(shown[1])
    own = None if stream.number is None else container.durations_s.get(stream.number)
    end = container.ends_s.get(stream.index)
    # Other containers keep the tag if the stream was copied from Matroska, where it may have been longer.
    if end is None and own is None and stream.duration_tag and found.container.startswith("matroska"):
        end = _seconds(stream.duration_tag)
    if own is None and end is not None:
        own = end - max(0.0, start)
    return SourceInfo(
        container=found.container,
        index=stream.index,
        codec=re.split(r"[ ,]", stream.description)[0],
        width=int(size[1]),
        height=int(size[2]),
        sample_aspect=Fraction(int(size[3] or 1) or 1, int(size[4] or 1) or 1),
        rotation=stream.rotation,
        fps=float(rate[1]) * (1000 if rate[2] else 1) if rate else None,
        duration_s=duration if own is None else own,
        exact_duration=own is not None,
        end_s=end,
        untagged=is_untagged(stream.description),
        timed_streams=tuple(
            other.index
            for other in found.streams.values()
            if other.kind in ("Video", "Audio", "Subtitle", "Data") and not STILL.search(other.description)
        ),
        complete=container.complete,
    )


@dataclass(frozen=True)
class FirstFrame:
    """The first frame of a stream. timestamp: in the time base of the stream; width, height: pixels, and sample_aspect,
    after rotation."""

    timestamp: int
    width: int
    height: int
    sample_aspect: Fraction


def first_frame(video: int, index: int, limits: Limits) -> FirstFrame:
    """Decode the first frame of a stream and return its properties.

    Raises Rejected ("decoder-error") if the stream has no frame.
    """
    log = FfmpegLog({"first": FIRST_FRAME})
    stream = video_input(video, limits, copyts=None)[str(index)].filter("showinfo")
    output = stream.output("-", format="null", vframes=1)
    run(command_line("info", output), video, limits, log=log, output=lambda data: None)
    if "first" not in log.last:
        raise Rejected("decoder-error", log.first_error())
    timestamp, *aspect, width, height = (int(number) for number in log.last["first"].groups())
    return FirstFrame(timestamp, width, height, Fraction(aspect[0] or 1, aspect[1] or 1))


def _seconds(clock: str) -> float | None:
    """Return the seconds of hours:minutes:seconds, or None for other text."""
    match = CLOCK.match(clock)
    return None if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
