"""Read the times of the packets of a video file, without decoding them.

ffmpeg copies the streams into its "framecrc" format: text on standard output with one line per packet. Text that a file
contains (titles, chapters) goes to the messages, so it cannot be taken for a packet.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import ffmpeg

from lgd.preprocessing.video.ffmpeg_child import run
from lgd.preprocessing.video.ffmpeg_input import command_line, video_input
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.rejections import Limits

TIME_BASE = re.compile(rb"#tb (\d+): (\d+)/(\d+)")
PACKET = re.compile(rb"(\d+), +(-?\d+), +(-?\d+), +(-?\d+), +\d+, 0x[0-9a-f]+(?:, F=0x([0-9A-Fa-f]+))?")
NO_TIME = -(1 << 63)
KEY = 1  # the flag of a packet that can be decoded without the ones before it
# A longer time between two packets is a gap: `decode` may leave it out.
GAP_S = 1.0
# `decode` leaves out a longer time between two frames: the clock of the file jumps there.
MAX_GAP_S = 120.0
MAX_LINE_BYTES = 4096


@dataclass
class StreamPackets:
    """The packets of one stream. Times are in seconds on the clock of the file.

    count: packets; first_s: of the first packet; key_s: of the first packet that can be decoded, None if there is none;
    end_s: when the last packet ends; gaps_s: total of the gaps in between; 0.0 each as long as `count` is 0.
    """

    count: int = 0
    first_s: float = 0.0
    key_s: float | None = None
    end_s: float = 0.0
    gaps_s: float = 0.0

    def add(self, start_s: float, length_s: float, *, key: bool) -> None:
        """Add the next packet in the order of the file, which is not that of the times if there are B-frames."""
        if self.count == 0:
            self.first_s = self.end_s = start_s
        if key and self.key_s is None:
            self.key_s = start_s
        if start_s > self.end_s + GAP_S:
            self.gaps_s += start_s - self.end_s
        self.count += 1
        self.first_s = min(self.first_s, start_s)
        if length_s > MAX_GAP_S:  # MP4 stores how long a frame is shown
            self.gaps_s += length_s
        self.end_s = max(self.end_s, start_s + length_s)

    def decodable_s(self) -> float:
        """Return the seconds from the first packet that can be decoded to the end, without the gaps."""
        return self.end_s - (self.first_s if self.key_s is None else self.key_s) - self.gaps_s


class _Enough(Exception):
    """The packets read so far are enough."""


def read_packets(
    video: int,
    streams: Sequence[int],
    limits: Limits,
    *,
    enough: Callable[[dict[int, StreamPackets]], bool] | None = None,
) -> dict[int, StreamPackets]:
    """Return the packets of some streams of an open file, by stream index.

    enough: called with the packets read so far after each block of them; reading ends when it returns True. A damaged
    file gives the packets that can be read. Raises Rejected at a limit ("timeout").
    """
    packets = {index: StreamPackets() for index in streams}
    reader = _FramecrcReader([packets[index] for index in streams])

    def on_output(data: bytes) -> None:
        reader.feed(data)
        if enough and enough(packets):
            raise _Enough

    source = video_input(video, limits, copyts=None)
    output = ffmpeg.output(
        *(source[str(index)] for index in streams), "-", format="framecrc", codec="copy", copyinkf=None
    )
    with suppress(_Enough):
        run(command_line("error", output), video, limits, log=FfmpegLog(), output=on_output)
    return packets


class _FramecrcReader:
    """Parses the lines of the framecrc format. streams: in the order of the output."""

    def __init__(self, streams: list[StreamPackets]):
        self.streams = streams
        self.time_bases: dict[int, Fraction] = {}
        self.partial = b""

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        *lines, partial = (self.partial + data).split(b"\n")
        self.partial = partial[:MAX_LINE_BYTES]
        for line in lines:
            if packet := PACKET.match(line):
                self._add(packet)
            elif base := TIME_BASE.match(line):
                self.time_bases[int(base[1])] = Fraction(int(base[2]), int(base[3]))

    def _add(self, packet: re.Match[bytes]) -> None:
        stream, dts, pts, length = (int(number) for number in packet.groups()[:4])
        start = dts if pts == NO_TIME else pts
        if start == NO_TIME or stream >= len(self.streams):
            return
        base = self.time_bases.get(stream, Fraction(1))
        key = packet[5] is None or bool(int(packet[5], 16) & KEY)
        self.streams[stream].add(float(start * base), float(max(length, 0) * base), key=key)
