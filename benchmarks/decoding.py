"""What decoding a video costs by part: processor time, which other work on the machine hardly changes."""

import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from lgd.preprocessing.settings import Settings
from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary, open_video, run
from lgd.preprocessing.video.ffmpeg_input import command_line
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.filters import FilterSettings, filtered
from lgd.preprocessing.video.probe import SourceInfo, probe
from lgd.preprocessing.video.rejections import Limits, Rejected

Result = TypeVar("Result")

TIMES = 3
PARTS = ("start", "decode", "resize", "pipe")


@dataclass(frozen=True)
class DecodeCost:
    """Processor time of decoding a video by part, seconds; wall_s is the time that it takes.

    start: the two ffmpeg processes start, and the first reads the header. decode: decoding at a constant rate. resize:
    resizing and converting to RGB, one step. pipe: writing the frames, reading and checking them in Python, in part at
    the same time as the other parts, on another core."""

    start: float
    decode: float
    resize: float
    pipe: float
    wall_s: float


def decode_cost(path: Path, settings: Settings) -> tuple[np.ndarray, DecodeCost]:
    """Return the frames of a complete video, and what they cost: medians of TIMES measurements.

    Raises Rejected for a video that cannot be decoded."""
    matrix, limits = settings.decoded_untagged_matrix, Limits()
    filters = FilterSettings(Fraction(settings.fps).limit_denominator(1001), settings.short_side, matrix)
    rows: list[dict[str, float]] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        all_s, frames = _timed(partial(decode, path, settings.fps, settings.short_side, untagged_matrix=matrix))
        wall_s = time.perf_counter() - began
        process_s, _ = _timed(partial(subprocess.run, [ffmpeg_binary(), "-version"], capture_output=True, check=True))
        with open_video(path) as video:
            probe_s, source = _timed(partial(_probe, video, limits))
            plain_s, _ = _timed(partial(_discard, video, source, filters, resize=False))
            resized_s, _ = _timed(partial(_discard, video, source, filters, resize=True))
        row = {
            "start": probe_s + process_s,
            "decode": plain_s - process_s,
            "resize": resized_s - plain_s,
            "pipe": all_s - probe_s - resized_s,
            "wall_s": wall_s,
        }
        rows.append({name: max(seconds, 0.0) for name, seconds in row.items()})
    return frames.rgb, DecodeCost(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def _probe(video: int, limits: Limits) -> SourceInfo:
    return probe(video, read_container(video, limits.seconds), limits)


def _discard(video: int, source: SourceInfo, filters: FilterSettings, *, resize: bool) -> None:
    """Decode a video with ffmpeg, which discards the frames."""
    stream = filtered(video, source, filters, limits=Limits(), resize=resize)
    output = stream.output("-", format="null", threads=1, filter_complex_threads=1)
    log = FfmpegLog()
    if run(command_line("error", output), video, Limits(), log=log, output=lambda data: None):
        raise Rejected("decoder-error", log.first_error())


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the processor time of this process and its children for `work`, seconds, and its result."""
    before = _processor_s()
    result = work()
    return _processor_s() - before, result


def _processor_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
