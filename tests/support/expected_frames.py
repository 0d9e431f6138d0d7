"""Which source frame each decoded frame must show, from PyAV's frames and their times."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import av

from lgd.preprocessing.video.filters import MAX_BACK_S
from lgd.preprocessing.video.packets import MAX_GAP_S
from tests.support.numbered_videos import read_numbers

# Times this close to half-way between two output frames may be rounded either way: they are not exact in binary, and
# where they are counted from frame to frame, the file may have rounded them to milliseconds.
TIE_S, COUNTED_TIE_S = 1e-5, 2e-3
# Where a frame has no time, or its time goes back a little, libraries guess different times: so many frames before and
# after it may be shown instead. All others have to be exact.
UNCLEAR_FRAMES = 3


@dataclass(frozen=True)
class SourceFrame:
    """A frame as PyAV decodes it. number: that it shows; time_s: on the clock of the file, None if it has none;
    duration_s: None if unknown."""

    number: int
    time_s: float | None
    duration_s: float | None


@dataclass(frozen=True)
class Expected:
    """What the decoder must return.

    numbers: that each output frame may show, more than one only where a time is half-way; slack: frames by which the
    length may differ, because the duration of the last source frame is often not known.
    """

    numbers: list[set[int]]
    slack: int


def source_frames(path: Path) -> list[SourceFrame]:
    """Return the frames of a file in the order of presentation; of the video with most frames if there are several.

    Raises av.FFmpegError if the packets cannot be read to the end of the file.
    """
    with av.open(str(path)) as file:
        indices = [stream.index for stream in file.streams.video]
    return max((_frames(path, index) for index in indices), key=len, default=[])


def _frames(path: Path, index: int) -> list[SourceFrame]:
    frames = []
    with av.open(str(path)) as file:
        for packet in file.demux(file.streams[index]):
            try:
                decoded = packet.decode()
            except av.FFmpegError:  # before the first keyframe, or a header in the middle
                continue
            for frame in decoded:
                assert isinstance(frame, av.VideoFrame)
                (number,) = read_numbers(frame.to_ndarray(format="gray")[None])
                duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else None
                frames.append(SourceFrame(number, frame.time, duration))
    return frames


def expected_frames(frames: list[SourceFrame], fps: float, *, step_s: float | None) -> Expected:
    """Return what must be decoded at a constant rate.

    The rule is that of ffmpeg's filter `fps`: the time of each source frame since the first one is rounded to the
    nearest output frame, and an output frame shows the last source frame at or before it. So the pictures are at most
    half an output frame early or late, and no error adds up.
    step_s: from frame to frame, for files that do not contain the times of their frames; else None.
    """
    if step_s is not None:
        frames = [replace(frame, time_s=step_s * index, duration_s=step_s) for index, frame in enumerate(frames)]
    starts = _continuous(frames)
    tie_s = TIE_S if step_s is None else COUNTED_TIE_S
    step = starts[-1] - starts[-2] if len(starts) > 1 else 1 / fps
    last_s = frames[-1].duration_s or step
    last_s = last_s if last_s <= MAX_GAP_S else step
    early, late = (_shown([start + tie for start in starts], starts[-1] + last_s + tie, fps) for tie in (tie_s, -tie_s))
    late += early[len(late) :]
    numbers = [_numbers_at(frames, a) | _numbers_at(frames, b) for a, b in zip(early, late, strict=True)]
    return Expected(numbers, slack=max(1, min(round(max(last_s, step) * fps), 5)))


def _numbers_at(frames: list[SourceFrame], index: int) -> set[int]:
    """Return the number of a frame, and those near it where the file leaves the times open: see UNCLEAR_FRAMES."""
    first, end = max(0, index - UNCLEAR_FRAMES), index + UNCLEAR_FRAMES + 1
    times = [frame.time_s for frame in frames[max(0, first - 1) : end]]
    unclear = None in times or any(
        a is not None and b is not None and -MAX_BACK_S <= b - a <= 0 for a, b in pairwise(times)
    )
    return {frame.number for frame in frames[first:end]} if unclear else {frames[index].number}


def _continuous(frames: list[SourceFrame]) -> list[float]:
    """Return the seconds from the first frame to each one, continued where the clock begins again.

    As the decoder documents it: where the clock goes back, or forward by more than MAX_GAP_S, a frame follows the one
    before after as long as that one followed its own predecessor.
    """
    starts = [0.0]
    step = frames[0].duration_s or 0.04
    clock, start = frames[0].time_s, 0.0  # of the last frame that has a time
    for frame in frames[1:]:
        if frame.time_s is None or clock is None:
            starts.append(starts[-1] + step)
        elif -MAX_BACK_S <= frame.time_s - clock <= MAX_GAP_S:
            starts.append(start + frame.time_s - clock)
            step = starts[-1] - starts[-2] if starts[-1] > starts[-2] else step
        else:
            starts.append(starts[-1] + step)
        if frame.time_s is not None:
            clock, start = frame.time_s, starts[-1]
    return starts


def _shown(starts: list[float], end: float, fps: float) -> list[int]:
    """Return the index of the source frame that each output frame shows."""
    firsts = [math.floor(start * fps + 0.5) for start in starts]
    shown, index = [], 0
    for k in range(max(1, math.floor(end * fps + 0.5))):
        while index + 1 < len(firsts) and firsts[index + 1] <= k:
            index += 1
        shown.append(index)
    return shown
