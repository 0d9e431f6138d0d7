"""TV-L1 flow: the numba solver beside OpenCV's, on a user's videos, on one core, side by side in one run.

Every pair of frames is solved by one solver and then by the other, so that both see the same machine; a ratio is the
median of the pairs' ratios. Each pair is a clip of its own, so numba does not gain from what consecutive pairs share.
Frames are those that `lgd preprocess` sees (25 a second), brought to each size whatever their shape. A video before a
still camera has little to gain: its row says so by its motion.

Claimed are 8 times OpenCV's speed at 160 x 120 and 6 times at 340 x 256, a mean difference from OpenCV's flow of at
most 0.1 pixels, and on Middlebury's pairs an end-point error of at most OpenCV's + 0.01 pixels.
"""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from rich.table import Column, Table

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.flow import numba_solver as tvl1_numba
from lgd.preprocessing.flow.tvl1 import compute_flow, warm_up
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.files import VideoFiles
from lgd.preprocessing.video.rejections import Rejected

FPS = 25.0
FIRST_FRAME = 5  # of a video: many begin with a black one
SHORT_SIDE = 256  # of the decoded frames, pixels, before they are brought to a size
SIZES = {"160x120": (160, 120), "340x256": (340, 256)}
PAIR_FILES = ("frame10.png", "frame11.png", "flow10.flo")  # of Middlebury
UNKNOWN_FLOW = 1e9  # Middlebury marks pixels of unknown motion by values above

MIN_RATIO = {"160x120": 8, "340x256": 6}
MAX_DIFFERENCE = 0.1  # pixels, mean over all pairs
MAX_EXTRA_ERROR = 0.01  # pixels, mean end-point error over OpenCV's


@dataclass(frozen=True)
class Pair:
    """Two frames solved by both: seconds of each solver, mean length of OpenCV's vectors and of their difference from
    numba's, pixels."""

    opencv_s: float
    numba_s: float
    motion_px: float
    difference_px: float


def run(data: Path, videos: int, pairs: int) -> dict[str, Any]:
    """Measures everything; returns it as one JSON document.

    data: a folder with videos at any depth, and Middlebury pairs or none. videos: how many of them, evenly chosen.
    pairs: how many are solved of each video at each size. Raises UserError for a folder without usable videos."""
    files = VideoFiles(Storage(data))
    if not files.paths:
        raise UserError(f"{data} holds no videos (known by extensions such as .mp4, .avi, .webm)")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        result: dict[str, Any] = {"warm_up_s": warm_up()}
        clips, left_out = read_clips(data, [files.paths[i] for i in evenly_spaced(len(files.paths), videos)], pairs + 1)
        result["left_out"] = left_out
        with Progress("flow", len(SIZES) * len(clips), "videos") as progress:
            for name, size in SIZES.items():
                solved = {}
                for video, clip in clips.items():
                    solved[video] = solve_pairs(resized(clip, size))
                    progress.update(len(result.get("stages", {})) * len(clips) + len(solved))
                rows = [{"video": video, **summary(of_video)} for video, of_video in solved.items()]
                result[name] = {**summary([pair for of_video in solved.values() for pair in of_video]), "videos": rows}
                result.setdefault("stages", {})[name] = stage_shares([resized(clip, size) for clip in clips.values()])
        if folders := middlebury_folders(data, files.other_files):
            result["middlebury"] = {name: end_point_errors(folder) for name, folder in folders.items()}
    finally:
        cv2.setNumThreads(threads)
    result["failed"] = broken_claims(result)
    return result


def read_clips(data: Path, paths: Sequence[str], count: int) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    """By path, `count` gray frames (uint8 T x H x W) of each video; and those left out, with a reason.

    Raises UserError if that is all of them."""
    clips, left_out = {}, []
    for path in paths:
        try:
            clips[path] = gray_frames(data / path, count)
        except Rejected as rejection:
            left_out.append({"video": path, "reason": rejection.reason, "detail": rejection.detail})
    if not clips:
        first = left_out[0]
        raise UserError(f"none of {len(paths)} videos of {data} can be used; {first['video']}: {first['detail']}")
    return clips, left_out


def gray_frames(video: Path, count: int) -> np.ndarray:
    """uint8 count x H x W from FIRST_FRAME on, in the video's own shape. Raises Rejected if it is broken or shorter."""
    end = FIRST_FRAME + count
    decoded = decode(video, FPS, SHORT_SIDE, end_s=end / FPS, min_frames=end)
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in decoded.rgb[FIRST_FRAME:]])


def resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Gray frames T x H x W -> T x the size (width, height)."""
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def solve_pairs(frames: np.ndarray) -> list[Pair]:
    """Each pair of a clip's frames (uint8 T x H x W) by both solvers in turn."""
    solved = []
    for pair in itertools.pairwise(frames):
        start = time.perf_counter()
        opencv = compute_flow(np.stack(pair), backend="opencv")
        between = time.perf_counter()
        numba = compute_flow(np.stack(pair), backend="numba")
        end = time.perf_counter()
        solved.append(Pair(between - start, end - between, mean_length(opencv), mean_length(numba - opencv)))
    return solved


def summary(pairs: Sequence[Pair]) -> dict[str, float]:
    """Medians of the times and of the pairs' ratios, means of the lengths."""
    return {
        "opencv_ms": 1e3 * statistics.median(pair.opencv_s for pair in pairs),
        "numba_ms": 1e3 * statistics.median(pair.numba_s for pair in pairs),
        "ratio": statistics.median(pair.opencv_s / pair.numba_s for pair in pairs),
        "motion_px": statistics.mean(pair.motion_px for pair in pairs),
        "mean_difference_px": statistics.mean(pair.difference_px for pair in pairs),
    }


def stage_shares(clips: Sequence[np.ndarray]) -> dict[str, float]:
    """Shares of numba's time on clips, with the loop over warps interpreted, so that its parts can be timed."""
    spent = dict.fromkeys(("warp", "iterate", "median"), 0.0)

    def timed(stage: str) -> Callable[..., Any]:
        kernel = getattr(tvl1_numba, stage)

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*arguments)
            spent[stage] += time.perf_counter() - start
            return result

        return call

    parts: dict[str, Any] = {stage: timed(stage) for stage in spent}
    parts["_solve_scale"] = tvl1_numba._solve_scale.py_func
    with mock.patch.multiple(tvl1_numba, **parts):
        compute_flow(np.zeros((2, 32, 32), np.uint8))  # compiles the stages
        for stage in spent:
            spent[stage] = 0
        start = time.perf_counter()
        for frames in clips:
            compute_flow(frames)
        whole = time.perf_counter() - start
    shares = {
        "warping": spent["warp"] / whole,
        "iterations": spent["iterate"] / whole,
        "median": spent["median"] / whole,
    }
    return {**shares, "pyramid_and_rest": 1 - sum(shares.values())}


def middlebury_folders(data: Path, files: Sequence[str]) -> dict[str, Path]:
    """The folders that hold a pair with its true flow, by name, or by path where a name is there twice.

    files: relative to data."""
    there = set(files)
    found = [file.removesuffix(PAIR_FILES[-1]) for file in files if Path(file).name == PAIR_FILES[-1]]
    folders = [data / path for path in found if all(path + name in there for name in PAIR_FILES)]
    names = Counter(folder.name for folder in folders)
    return {folder.name if names[folder.name] == 1 else str(folder.relative_to(data)): folder for folder in folders}


def end_point_errors(folder: Path) -> dict[str, float]:
    """Mean end-point error (pixels) of both solvers. Raises UserError for files that are not a pair and its flow."""
    pictures = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in PAIR_FILES[:2]]
    frames = [picture for picture in pictures if picture is not None]
    truth = read_flo(folder / PAIR_FILES[2])
    if [frame.shape for frame in frames] != [truth.shape[:2]] * 2:
        raise UserError(f"{folder} does not hold two pictures and a flow of one size")
    known = (np.abs(truth) < UNKNOWN_FLOW).all(axis=-1)
    return {
        f"{backend}_epe": mean_length(compute_flow(np.stack(frames), backend=backend)[0][known] - truth[known])
        for backend in ("opencv", "numba")
    }


def read_flo(path: Path) -> np.ndarray:
    """A Middlebury .flo file -> float32 H x W x 2 (x, y) in pixels; unknown motion is above 1e9.

    Raises UserError for another file."""
    content = path.read_bytes()
    width, height = np.frombuffer(content, "<i4", 2, offset=4) if len(content) >= 12 else (0, 0)
    if content[:4] != b"PIEH" or len(content) != 12 + 8 * width * height:
        raise UserError(f"{path} is not a Middlebury flow file, or not all of one")
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)


def mean_length(vectors: np.ndarray) -> float:
    """Of vectors ... x 2."""
    return float(np.hypot(vectors[..., 0], vectors[..., 1]).mean())


def broken_claims(result: dict[str, Any]) -> list[str]:
    """What of the claims does not hold: judged on the pairs of all videos together."""
    broken = []
    for size, least in MIN_RATIO.items():
        measured = result[size]
        if measured["ratio"] < least:
            broken.append(f"{size}: {measured['ratio']:.1f} times OpenCV's speed, not {least}")
        if measured["mean_difference_px"] > MAX_DIFFERENCE:
            broken.append(f"{size}: {measured['mean_difference_px']:.3f} px from OpenCV's flow")
    for name, errors in result.get("middlebury", {}).items():
        if errors["numba_epe"] > errors["opencv_epe"] + MAX_EXTRA_ERROR:
            broken.append(f"{name}: end-point error {errors['numba_epe']:.3f} px, OpenCV's {errors['opencv_epe']:.3f}")
    return broken


def report(result: dict[str, Any]) -> list[Any]:
    """The result of run() for people: lines and tables."""
    lines: list[Any] = []
    for size in SIZES:
        speed = Table(Column("one core, a pair", overflow="fold"), title=f"TV-L1 flow at {size}")
        for column in ("OpenCV ms", "numba ms", "ratio", "motion px", "difference px"):
            speed.add_column(column, justify="right")
        for video in result[size]["videos"]:
            speed.add_row(video["video"], *_cells(video))
        speed.add_section()
        speed.add_row("all pairs", *_cells(result[size]))
        lines.append(speed)
    lines += [f"left out: {row['video']} ({row['reason']}: {row['detail']})" for row in result["left_out"]]
    stages = Table("share of the time", *next(iter(result["stages"].values())))
    for size, shares in result["stages"].items():
        stages.add_row(size, *(f"{share:.0%}" for share in shares.values()))
    lines.append(stages)
    if "middlebury" in result:
        errors = Table("Middlebury", "OpenCV end-point error px", "numba end-point error px")
        for name, row in result["middlebury"].items():
            errors.add_row(name, *(f"{row[key]:.3f}" for key in ("opencv_epe", "numba_epe")))
        lines.append(errors)
    else:
        lines.append(f"no end-point errors: no folder here holds {', '.join(PAIR_FILES)} (Middlebury's pairs)")
    return [*lines, f"ready (compiled, or loaded from the cache) after {result['warm_up_s']:.1f} s"]


def _cells(row: dict[str, Any]) -> list[str]:
    milliseconds = [f"{row[key]:.1f}" for key in ("opencv_ms", "numba_ms", "ratio")]
    return [*milliseconds, f"{row['motion_px']:.2f}", f"{row['mean_difference_px']:.3f}"]
