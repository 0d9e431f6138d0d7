"""Pairs of frames with their true flow, as Middlebury publishes them: the end-point errors of both TV-L1 solvers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.flow.tvl1 import compute_flow

PAIR_FILES = ("frame10.png", "frame11.png", "flow10.flo")
UNKNOWN_FLOW = 1e9  # the files mark pixels of unknown motion with larger values


@dataclass(frozen=True)
class EndPointErrors:
    """Mean end-point errors of both solvers on one pair, pixels."""

    opencv_epe: float
    """Mean end-point error of OpenCV's solver, pixels."""
    numba_epe: float
    """Mean end-point error of the numba solver, pixels."""


def middlebury_folders(data: Path, files: Sequence[str]) -> dict[str, Path]:
    """Return the folders that hold a pair and its true flow, by name; by path if a name occurs twice.

    files: relative to data."""
    existing = set(files)
    prefixes = [file.removesuffix(PAIR_FILES[-1]) for file in files if Path(file).name == PAIR_FILES[-1]]
    folders = [data / prefix for prefix in prefixes if all(prefix + name in existing for name in PAIR_FILES)]
    names = Counter(folder.name for folder in folders)
    return {folder.name if names[folder.name] == 1 else str(folder.relative_to(data)): folder for folder in folders}


def end_point_errors(folder: Path) -> EndPointErrors:
    """Return the end-point errors on a Middlebury pair. Raises UserError if the folder does not hold a valid pair."""
    pictures = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in PAIR_FILES[:2]]
    frames = [picture for picture in pictures if picture is not None]
    truth = read_flo(folder / PAIR_FILES[2])
    if [frame.shape for frame in frames] != [truth.shape[:2]] * 2:
        raise UserError(f"{folder} does not contain two pictures and a flow of the same size")
    known = (np.abs(truth) < UNKNOWN_FLOW).all(axis=-1)
    opencv, numba = (
        mean_length(compute_flow(np.stack(frames), backend=backend)[0][known] - truth[known])
        for backend in ("opencv", "numba")
    )
    return EndPointErrors(opencv, numba)


def read_flo(path: Path) -> np.ndarray:
    """Read a Middlebury .flo file: float32 H x W x 2 (x, y) in pixels; values above 1e9 mean unknown motion.

    Raises UserError for any other file."""
    content = path.read_bytes()
    width, height = np.frombuffer(content, "<i4", 2, offset=4) if len(content) >= 12 else (0, 0)
    if content[:4] != b"PIEH" or len(content) != 12 + 8 * width * height:
        raise UserError(f"{path} is not a complete Middlebury flow file")
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)


def mean_length(vectors: np.ndarray) -> float:
    """Return the mean length of vectors (... x 2)."""
    return float(np.hypot(vectors[..., 0], vectors[..., 1]).mean())
