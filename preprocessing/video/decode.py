"""Decode a video to upright RGB frames at a constant rate with ffmpeg.

A broken or hostile file can only be rejected: ffmpeg_child sets the limits, and probe the formats that are opened.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lgd.preprocessing.video.colors import UntaggedMatrix
from lgd.preprocessing.video.completeness import check_complete
from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.ffmpeg_child import open_video, run
from lgd.preprocessing.video.ffmpeg_input import command_line
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.filters import FilterMessages, FilterSettings, filtered, resized_size
from lgd.preprocessing.video.packets import StreamPackets, read_packets
from lgd.preprocessing.video.pixmaps import PpmReader
from lgd.preprocessing.video.probe import SourceInfo, probe
from lgd.preprocessing.video.rejections import Limits, Rejected, TooManyFrames

# The clock of these containers may jump anywhere: players show the next frame at once.
JOINABLE = ("mpegts", "mpeg")
# Maximum fraction of damaged frames: in a video with more, too much of the content was invented by error concealment.
MAX_DAMAGED = 0.1
DAMAGE = re.compile(
    r"corrupt decoded frame|corrupt input packet|Error submitting packet to decoder|Error while decoding stream"
)
# Text of the file (a title, a chapter) comes after another level.
LEVEL = r"^(?:\[[^\]]* @ [^\]]*\] )*\[(?:warning|error|fatal)\] "
PATTERNS = {
    "damage": DAMAGE,
    "limit": re.compile(rf"{LEVEL}.*(?:Cannot allocate memory|exceeds specified max pixel)"),
    # ffmpeg ends as if the file ended there: a second file that was copied behind an Ogg file with sound.
    "stopped": re.compile(rf"{LEVEL}Error during demuxing: Not yet implemented"),
    "joined": re.compile(rf"{LEVEL}Found duplicated MOOV Atom"),
}


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
    untagged_matrix: UntaggedMatrix = "bt709-hd",
    min_frames: int = 2,
    on_frame: Callable[[np.ndarray], None] | None = None,
) -> Frames:
    """Decode a video to upright frames at a constant rate.

    fps: frames per second. Frame k shows the source k / fps seconds after its first frame; for sources with a different
    or variable frame rate, frames are repeated or dropped.
    short_side: pixels of the shorter side; the longer side keeps the displayed aspect ratio, rounded to a pixel.
    Nothing is cropped; alpha is dropped. If the format of the pictures changes midway (size, pixel format, aspect
    ratio, colors), all frames are resized to the size of the first one.
    start_s, end_s: keep the frames k with start_s <= k / fps < end_s, the same frames as in the complete video.
    untagged_matrix: the color matrix of videos that declare none; the first frame decides for the whole video.
    min_frames: a video with fewer frames is rejected.
    on_frame: called with each frame (uint8 H x W x 3) while the video is decoded; no frame is kept for the result. Its
    time counts toward the time limits.

    In joined recordings, the clock begins again: it goes back, or jumps forward by more than 120 s between two frames.
    The frame after the join then follows the one before as if there were no join, and start_s and end_s count the
    seconds of this continuous video. Where players do not agree (a jump forward in other containers than MPEG-TS and
    MPEG-PS), an interval that does not end before the jump is a "decoder-error".
    A second file that was copied behind the first one is a "decoder-error" in containers of which ffmpeg does not read
    it, see `joined`.

    Raises Rejected with one of the reasons in `rejections.REASONS`. A file shorter than it declares is "truncated": by
    any byte where the container has sizes (MP4, MOV, 3GP, AVI, Matroska, WebM, ASF, WMV), else if its packets end more
    than 0.5 s and more than 5 % before the declared end (FLV, RealMedia, MXF, GXF, IVF, fragmented MP4), see
    `completeness.check_complete`. Sound, subtitles and data may outlast the video, or begin before it. Containers that
    declare nothing (MPEG-TS, MPEG-PS, Ogg, NUT, DV, GIF, Y4M, raw streams, recordings written to a pipe) cannot be
    checked; a truncated WTV file is "unreadable". A video that ends more than 0.5 s and more than 5 % before
    end_s is "too-short". If the decoder reports errors in more than 10 % of the frames, the video is a "decoder-error";
    with fewer, the frames are used as the decoder conceals them, and the errors are counted in `Frames.damaged`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with open_video(path) as video:
        container = read_container(video, limits.seconds)
        if container.truncation:
            raise Rejected("truncated", container.truncation)
        if container.second_at is not None:
            raise Rejected(
                "decoder-error",
                f"a second recording follows at byte {container.second_at}, which cannot be decoded together with the "
                "first: split the file there, or join the recordings with ffmpeg's concat demuxer",
            )
        source = probe(video, container, limits)
        _check_sizes(source, short_side, limits)
        if start_s is None and end_s is None:
            _check_duration(video, source, rate, limits=limits)
        filters = FilterSettings(rate, short_side, untagged_matrix, start_s, end_s)
        messages = FilterMessages(source, untagged_matrix, limits)
        log = FfmpegLog(PATTERNS | {"summary": _summary(source.index)}, messages.add)
        reader = PpmReader(limits, on_frame)
        command = _command(video, source, filters, limits=limits)
        status = run(command, video, limits, log=log, output=reader.feed)
        if status != 0 or "limit" in log.last or "stopped" in log.last:
            raise _failure(log, limits)
        rgb = reader.frames()
        damaged, (packets, decoded) = log.counts.get("damage", 0), _source_frames(log)
        if damaged > MAX_DAMAGED * decoded:
            raise Rejected("decoder-error", f"the decoder reported {damaged} errors in {decoded} frames")
        if "joined" in log.last and decoded < (1 - MAX_DAMAGED) * packets:
            raise Rejected(
                "decoder-error",
                f"several MP4 files were copied into one, of which {decoded} of {packets} frames can be decoded: "
                "join them with ffmpeg's concat demuxer",
            )
        if start_s is not None or end_s is not None:
            _check_clock(source, messages.jumps, filters)
        seconds = reader.count / float(rate)
        if end_s is not None:
            _check_interval(start_s or 0.0, end_s, seconds)
        elif start_s is None:
            check_complete(video, source, seconds, limits=limits)
    if reader.count < min_frames:
        required = f"the required {min_frames} frames at {float(rate):g} frames per second"
        raise Rejected("too-short", f"the video has {reader.count} of {required}")
    return Frames(rgb, float(rate), source.width, source.height, source.rotation, source.fps, source.codec, damaged)


def decode_each_frame(
    path: Path,
    fps: float,
    short_side: int,
    *,
    on_frame: Callable[[np.ndarray], None],
    limits: Limits = Limits(),
    untagged_matrix: UntaggedMatrix = "bt709-hd",
) -> int:
    """Decode a complete video, call `on_frame` with each of its frames (uint8 H x W x 3), and return their number.

    short_side: pixels; the number of frames does not depend on it. Raises Rejected as `decode`, which explains the
    other arguments.
    """
    count = 0

    def counted(frame: np.ndarray) -> None:
        nonlocal count
        count += 1
        on_frame(frame)

    decode(path, fps, short_side, limits=limits, untagged_matrix=untagged_matrix, min_frames=1, on_frame=counted)
    return count


def _command(video: int, source: SourceInfo, filters: FilterSettings, *, limits: Limits) -> list[str]:
    """Return ffmpeg's arguments: write the video stream to standard output as PPM images, which contain their size."""
    stream = filtered(video, source, filters, limits=limits)
    output = stream.output("pipe:1", format="image2pipe", vcodec="ppm", threads=1, filter_complex_threads=1)
    return command_line("verbose", output)


def _check_sizes(source: SourceInfo, short_side: int, limits: Limits) -> None:
    """Raise Rejected ("too-large") if the frames of the file, or the resized frames, exceed a limit on their size."""
    if not source.width or not source.height:
        raise Rejected("decoder-error", f"the file declares frames of {source.width} x {source.height} pixels")
    if source.width * source.height > limits.pixels:
        raise Rejected("too-large", f"{source.width} x {source.height} pixels; the limit is {limits.pixels} pixels")
    limits.check_size(*_resized_size(source, short_side))


def _resized_size(source: SourceInfo, short_side: int) -> tuple[int, int]:
    """Return the width and height of the resized frames, pixels."""
    if abs(source.rotation % 180 - 90) < 1:  # ffmpeg turns the frames before it resizes them
        return resized_size(source.height, source.width, 1 / source.sample_aspect, short_side=short_side)
    return resized_size(source.width, source.height, source.sample_aspect, short_side=short_side)


def _check_duration(video: int, source: SourceInfo, rate: Fraction, *, limits: Limits) -> None:
    """Raise TooManyFrames before decoding if the video is certainly longer than the limit: a file that contains less
    than it declares is rejected as well, as truncated."""
    if source.duration_s is None or not source.exact_duration:
        return
    frames = round(source.duration_s * rate)
    limit = 1.06 * limits.frames + rate
    if frames <= limit:
        return

    def too_long(packets: Mapping[int, StreamPackets]) -> bool:
        return packets[source.index].decodable_s() * rate > limit

    # A jump of the clock does not count.
    if too_long(read_packets(video, [source.index], limits, enough=too_long)):
        raise TooManyFrames(
            f"the video has about {frames} frames ({source.duration_s:.0f} s); the limit is {limits.frames}: "
            f"{limits.more_frames()}"
        )


def _check_clock(source: SourceInfo, jumps: Sequence[tuple[float, float]], filters: FilterSettings) -> None:
    """Raise Rejected ("decoder-error") if the clock jumps forward before the annotated interval ends.

    jumps: see `FilterMessages`."""
    if source.container.startswith(JOINABLE):
        return
    for moment, by in jumps:
        if by > 0 and (filters.end_s is None or moment + 1 / filters.rate < filters.end_s):
            raise Rejected(
                "decoder-error",
                f"timestamps jump by {by:.0f} s at {moment:.1f} s, before the annotated interval ends: "
                "the start and the end are ambiguous",
            )


def _check_interval(start_s: float, end_s: float, decoded_s: float) -> None:
    """Raise Rejected ("too-short") if the video ends long before the annotated interval does."""
    if decoded_s < end_s - start_s - max(0.5, 0.05 * (end_s - start_s)):
        interval = f"from {start_s:g} s to {end_s:g} s"
        raise Rejected("too-short", f"the video contains only {decoded_s:.2f} s of the annotated interval {interval}")


def _failure(log: FfmpegLog, limits: Limits) -> Rejected:
    """Return why ffmpeg failed: its memory limit, frames that exceed the pixel limit mid-video, or a damaged file."""
    if "limit" not in log.last:
        return Rejected("decoder-error", log.first_error())
    if "memory" in log.last["limit"][0]:
        return Rejected("too-large", f"ffmpeg needs more memory than {limits.in_words(limits.memory_bytes)}")
    return Rejected("too-large", f"the pictures exceed the limit of {limits.pixels} pixels midway")


def _summary(index: int) -> re.Pattern[str]:
    """Return the pattern of the line that ffmpeg prints at the end about a video stream."""
    return re.compile(rf"\[verbose\]\s+Input stream #0:{index} \(video\): (\d+) packets read.*?(\d+) frames decoded")


def _source_frames(log: FfmpegLog) -> tuple[int, int]:
    """Return the number of packets of the video and of frames decoded from them, from ffmpeg's final summary."""
    return (int(log.last["summary"][1]), int(log.last["summary"][2])) if "summary" in log.last else (0, 0)
