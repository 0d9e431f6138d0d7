"""TV-L1 flow: the numba solver compared with OpenCV's, on a user's videos, on one core.

Both solvers compute every pair of frames, one directly after the other, so that both have the same conditions; a ratio
is the median of the pairs' ratios. Each pair is a separate clip, so numba does not benefit from what consecutive pairs
share. The frames are those of `lgd preprocess` (25 per second), resized to each size regardless of their aspect ratio.
numba gains little on a video with a static camera: the column of motion shows such videos.

The iterations, which take most of the time, are also measured beside what the core can do, see flow_peak.

Claims: 18 times as fast as OpenCV at 160 x 120 and at 340 x 256; a mean difference from OpenCV's flow of at
most 0.1 pixels; on Middlebury's pairs an end-point error of at most OpenCV's + 0.01 pixels.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import cv2
import numpy as np
from rich.table import Column, Table

from lgd.benchmarks.claims import ClaimsResult
from lgd.benchmarks.flow_peak import FLOP_PER_PIXEL, CorePeak, IterationSpeed, measure_core, measure_iterations
from lgd.benchmarks.middlebury import PAIR_FILES, EndPointErrors, end_point_errors, mean_length, middlebury_folders
from lgd.pipeline.console.command_line import AT_TOP_LEVEL, Line
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.flow import numba_solver
from lgd.preprocessing.flow.tvl1 import compute_flow, warm_up
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.files import VideoFiles
from lgd.preprocessing.video.rejections import Rejected

FPS = 25.0
FIRST_FRAME = 5  # of each video: many videos begin with a black frame
SHORT_SIDE = 256  # of the decoded frames before they are resized, pixels
SIZES = {"160x120": (160, 120), "340x256": (340, 256)}

MIN_RATIO = {"160x120": 18, "340x256": 18}
MAX_DIFFERENCE = 0.1  # pixels, mean over all pairs
MAX_EXTRA_ERROR = 0.01  # pixels, mean end-point error above OpenCV's


@dataclass(frozen=True)
class Pair:
    """Two frames computed by both solvers.

    opencv_s, numba_s: seconds of each solver. motion_px: mean length of OpenCV's vectors. difference_px: mean length of
    the difference between both solvers' vectors."""

    opencv_s: float
    numba_s: float
    motion_px: float
    difference_px: float


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """Pairs of frames, summarized."""

    opencv_ms: float
    """Time of OpenCV's solver per pair, milliseconds, median."""
    numba_ms: float
    """Time of the numba solver per pair, milliseconds, median."""
    ratio: float
    """How many times as fast numba is as OpenCV, median."""
    motion_px: float
    """Mean length of OpenCV's flow vectors, pixels."""
    mean_difference_px: float
    """Mean length of the difference between both solvers' vectors, pixels."""


@dataclass(frozen=True, kw_only=True)
class VideoSummary(PairSummary):
    """The pairs of one video."""

    video: str
    """Path of the video in the folder."""


@dataclass(frozen=True, kw_only=True)
class SizeSummary(PairSummary):
    """The pairs of all videos at one size."""

    videos: list[VideoSummary]
    """The same for the pairs of each video alone."""


@dataclass(frozen=True)
class SkippedVideo:
    """A video that cannot be used."""

    video: str
    """Path of the video in the folder."""
    reason: str
    """Reason, as in rejected.parquet."""
    detail: str
    """One sentence that explains it."""


@dataclass(frozen=True, kw_only=True)
class FlowBenchmark(ClaimsResult):
    """Result of `lgd bench flow`."""

    warm_up_s: float
    """Time to compile the solver or to load it from the cache, seconds."""
    left_out: list[SkippedVideo]
    """Videos that cannot be used."""
    sizes: dict[str, SizeSummary] = field(metadata=AT_TOP_LEVEL)
    """Results by size of the frames, such as 160x120."""
    stages: dict[str, dict[str, float]]
    """By size and stage of the numba solver, the fraction of its time."""
    core: CorePeak
    """What one core can do."""
    iterations: dict[str, IterationSpeed]
    """By size, the speed of the numba solver's iterations, without their stopping rule."""
    middlebury: dict[str, EndPointErrors] | None
    """End-point errors by name of the Middlebury pair; only if the folder has such pairs."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("middlebury",)

    def document(self) -> dict[str, Any]:
        fields = super().document()
        return {**fields.pop("sizes"), **fields}

    def lines(self) -> list[Line]:
        lines: list[Line] = []
        for size, summary in self.sizes.items():
            ratios = Table(Column("per pair, one core", overflow="fold"), title=f"TV-L1 flow at {size}")
            for column in ("OpenCV ms", "numba ms", "ratio", "motion px", "difference px"):
                ratios.add_column(column, justify="right")
            for video in summary.videos:
                ratios.add_row(video.video, *_cells(video))
            ratios.add_section()
            ratios.add_row("all pairs", *_cells(summary))
            lines.append(ratios)
        lines += [f"left out: {skipped.video} ({skipped.reason}: {skipped.detail})" for skipped in self.left_out]
        stages = Table("share of the time", *next(iter(self.stages.values())))
        for size, shares in self.stages.items():
            stages.add_row(size, *(f"{share:.0%}" for share in shares.values()))
        lines.append(stages)
        speeds = Table(
            "iterations, without a stop", "ns per pixel", "GFLOP/s", "of the peak", "of the bound by division"
        )
        for size, speed in self.iterations.items():
            speeds.add_row(
                size,
                f"{speed.ns_per_pixel:.2f}",
                f"{speed.gflops:.0f}",
                f"{speed.peak_share:.0%}",
                f"{speed.division_share:.0%}",
            )
        lines.append(speeds)
        lines.append(
            f"one core: {self.core.gflops:.0f} GFLOP/s in fused multiply-adds; a division and two square roots take "
            f"{self.core.division_ns:.2f} ns per pixel; an iteration is {FLOP_PER_PIXEL} operations per pixel"
        )
        if self.middlebury is not None:
            table = Table("Middlebury", "OpenCV end-point error px", "numba end-point error px")
            for name, errors in self.middlebury.items():
                table.add_row(name, f"{errors.opencv_epe:.3f}", f"{errors.numba_epe:.3f}")
            lines.append(table)
        else:
            lines.append(f"no end-point errors: no folder holds {', '.join(PAIR_FILES)} (pairs of Middlebury)")
        return [*lines, f"warm-up (compiling or loading from the cache): {self.warm_up_s:.1f} s"]


def _cells(row: PairSummary) -> list[str]:
    speeds = [f"{value:.1f}" for value in (row.opencv_ms, row.numba_ms, row.ratio)]
    return [*speeds, f"{row.motion_px:.2f}", f"{row.mean_difference_px:.3f}"]


def run(data: Path, videos: int, pairs: int) -> FlowBenchmark:
    """Run the benchmark.

    data: a folder with videos at any depth and optionally Middlebury pairs. videos: number of videos to measure, evenly
    chosen. pairs: pairs of frames per video and size. Raises UserError for a folder without usable videos."""
    files = VideoFiles(Storage(data))
    if not files.paths:
        raise UserError(f"{data} contains no videos (files with extensions such as .mp4, .avi, .webm)")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    sizes: dict[str, SizeSummary] = {}
    stages, iterations, middlebury = {}, {}, None
    try:
        warm_up_s = warm_up()
        core = measure_core()
        paths = [files.paths[i] for i in evenly_spaced(len(files.paths), videos)]
        clips, left_out = read_clips(data, paths, pairs + 1)
        with Progress("flow", len(SIZES) * len(clips), "videos") as progress:
            for name, size in SIZES.items():
                solved = {}
                for video, clip in clips.items():
                    solved[video] = solve_pairs(resize(clip, size))
                    progress.update(len(sizes) * len(clips) + len(solved))
                rows = [VideoSummary(video=video, **vars(summarize(of_video))) for video, of_video in solved.items()]
                all_pairs = [pair for of_video in solved.values() for pair in of_video]
                sizes[name] = SizeSummary(**vars(summarize(all_pairs)), videos=rows)
                resized = [resize(clip, size) for clip in clips.values()]
                stages[name] = stage_shares(resized)
                iterations[name] = measure_iterations(resized, core)
        if folders := middlebury_folders(data, files.other_files):
            middlebury = {name: end_point_errors(folder) for name, folder in folders.items()}
    finally:
        cv2.setNumThreads(threads)
    return FlowBenchmark(
        warm_up_s=warm_up_s,
        left_out=left_out,
        sizes=sizes,
        stages=stages,
        core=core,
        iterations=iterations,
        middlebury=middlebury,
        claims_not_met=claims_not_met(sizes, middlebury or {}),
    )


def read_clips(data: Path, paths: Sequence[str], count: int) -> tuple[dict[str, np.ndarray], list[SkippedVideo]]:
    """Return `count` gray frames (uint8 T x H x W) of each video by its path, and the videos that cannot be used.

    Raises UserError if no video can be used."""
    clips, skipped = {}, []
    for path in paths:
        try:
            clips[path] = gray_frames(data / path, count)
        except Rejected as rejection:
            skipped.append(SkippedVideo(path, rejection.reason, rejection.detail))
    if not clips:
        raise UserError(f"none of {len(paths)} videos in {data} can be used; {skipped[0].video}: {skipped[0].detail}")
    return clips, skipped


def gray_frames(video: Path, count: int) -> np.ndarray:
    """Return uint8 count x H x W, starting at FIRST_FRAME, with the video's own aspect ratio.

    Raises Rejected for a broken or shorter video."""
    end = FIRST_FRAME + count
    decoded = decode(video, FPS, SHORT_SIDE, end_s=end / FPS, min_frames=end)
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in decoded.rgb[FIRST_FRAME:]])


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize gray frames (T x H x W) to (width, height)."""
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def solve_pairs(frames: np.ndarray) -> list[Pair]:
    """Compute the flow of each pair of consecutive frames (uint8 T x H x W) with both solvers in turn."""
    solved = []
    for pair in itertools.pairwise(frames):
        start = time.perf_counter()
        opencv = compute_flow(np.stack(pair), backend="opencv")
        between = time.perf_counter()
        numba = compute_flow(np.stack(pair), backend="numba")
        end = time.perf_counter()
        solved.append(Pair(between - start, end - between, mean_length(opencv), mean_length(numba - opencv)))
    return solved


def summarize(pairs: Sequence[Pair]) -> PairSummary:
    return PairSummary(
        opencv_ms=1e3 * statistics.median(pair.opencv_s for pair in pairs),
        numba_ms=1e3 * statistics.median(pair.numba_s for pair in pairs),
        ratio=statistics.median(pair.opencv_s / pair.numba_s for pair in pairs),
        motion_px=statistics.mean(pair.motion_px for pair in pairs),
        mean_difference_px=statistics.mean(pair.difference_px for pair in pairs),
    )


def stage_shares(clips: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the share of the numba solver's time by stage.

    The loop over the warps runs as plain Python here, so that its stages can be timed."""
    seconds = dict.fromkeys(("warp", "iterate", "median"), 0.0)

    def timed(stage: str) -> Callable[..., Any]:
        kernel = getattr(numba_solver, stage)

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*arguments)
            seconds[stage] += time.perf_counter() - start
            return result

        return call

    patches: dict[str, Any] = {stage: timed(stage) for stage in seconds}
    solve_scale: Any = numba_solver._solve_scale  # typed as the function that numba compiled
    patches["_solve_scale"] = solve_scale.py_func
    with mock.patch.multiple(numba_solver, **patches):
        compute_flow(np.zeros((2, 32, 32), np.uint8))  # compiles the stages
        for stage in seconds:
            seconds[stage] = 0
        start = time.perf_counter()
        for frames in clips:
            compute_flow(frames)
        total = time.perf_counter() - start
    shares = {
        "warping": seconds["warp"] / total,
        "iterations": seconds["iterate"] / total,
        "median": seconds["median"] / total,
    }
    return {**shares, "pyramid_and_rest": 1 - sum(shares.values())}


def claims_not_met(sizes: Mapping[str, SizeSummary], middlebury: Mapping[str, EndPointErrors]) -> list[str]:
    """Return the claims that the measurements do not support, judged on the pairs of all videos together."""
    broken = []
    for size, required in MIN_RATIO.items():
        measured = sizes[size]
        if measured.ratio < required:
            broken.append(f"{size}: {measured.ratio:.1f} times as fast as OpenCV (required: {required})")
        if measured.mean_difference_px > MAX_DIFFERENCE:
            broken.append(
                f"{size}: mean difference of {measured.mean_difference_px:.3f} px from OpenCV's flow (maximum: "
                f"{MAX_DIFFERENCE:g})"
            )
    for name, errors in middlebury.items():
        if errors.numba_epe > errors.opencv_epe + MAX_EXTRA_ERROR:
            broken.append(f"{name}: end-point error of {errors.numba_epe:.3f} px (OpenCV: {errors.opencv_epe:.3f})")
    return broken
