"""TV-L1 optical flow of a clip, with a choice of backends.

flow = compute_flow(frames)  # uint8 T x H x W, gray -> float32 (T - 1) x H x W x 2, in pixels
"""

import importlib.metadata
import itertools
import time

import cv2
import numpy as np

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.flow.params import TVL1Params

BACKENDS = ("numba", "opencv", "torch")


def solver_version(backend: str, device: str | None = None) -> str:
    """Return the version of the solver for a stream spec: it changes whenever the bytes of the flow may change.

    The numba solver uses IEEE arithmetic in a fixed order, so its own version is sufficient. The kernels of the other
    two backends come from their libraries, and those of torch also depend on the type of device.
    """
    if backend == "numba":
        return "1"
    if backend == "opencv":
        return cv2.__version__
    return f"1 (torch {importlib.metadata.version('torch')}, {device})"


def compute_flow(
    frames: np.ndarray, params: TVL1Params = TVL1Params(), backend: str = "numba", *, device: str | None = None
) -> np.ndarray:
    """Compute the motion from each frame to the next.

    frames: uint8 T x H x W, gray. Returns float32 (T - 1) x H x W x 2, in pixels: x to the right, y down; the point
    at (x, y) in frame i is at (x + flow[i, y, x, 0], y + flow[i, y, x, 1]) in frame i + 1.
    backend: one of BACKENDS. device: of the torch backend ("cpu", "cuda", "cuda:1"); default: the GPU if there is one.

    The flow of a pair depends only on its two frames: the bytes do not depend on the length of the clip.
    Raises UsageError for an unknown backend or a device that the backend does not support, UserError if the installed
    OpenCV has no TV-L1, ValueError for frames of a different type or shape.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown flow backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if device is not None and backend != "torch":
        raise UsageError(f"the {backend} flow backend runs on the CPU; device {device!r} is for the torch backend")
    if frames.dtype != np.uint8 or frames.ndim != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 T x H x W, not {frames.dtype} {' x '.join(map(str, frames.shape))}")
    if len(frames) == 1:
        return np.empty((0, *frames.shape[1:], 2), np.float32)
    if backend == "opencv":
        return _opencv_flow(frames, params)
    # Imported on use: importing numba takes half a second, and torch more.
    if backend == "torch":
        from lgd.preprocessing.flow import torch_solver

        return torch_solver.flow_of_clip(frames, params, device)
    from lgd.preprocessing.flow import numba_solver

    return numba_solver.flow_of_clip(frames, params)


def warm_up(backend: str = "numba", device: str | None = None) -> float:
    """Prepare a backend: compile it, or load the compiled code from the cache. Returns the seconds it took."""
    start = time.perf_counter()
    compute_flow(np.zeros((2, 32, 32), np.uint8), backend=backend, device=device)
    return time.perf_counter() - start


def _opencv_flow(frames: np.ndarray, params: TVL1Params) -> np.ndarray:
    if not hasattr(cv2, "optflow"):
        raise UserError(
            "the installed OpenCV has no TV-L1 (cv2.optflow): run pip uninstall opencv-python opencv-python-headless, "
            "then pip install opencv-contrib-python-headless; or choose the flow backend numba"
        )
    solver = cv2.optflow.DualTVL1OpticalFlow_create(  # type: ignore[attr-defined]
        tau=params.tau,
        lambda_=params.lambda_,
        theta=params.theta,
        nscales=params.scales,
        warps=params.warps,
        epsilon=params.epsilon,
        innnerIterations=params.inner_iterations,  # OpenCV spells it with three n
        outerIterations=params.outer_iterations,
        scaleStep=params.scale_step,
        medianFiltering=params.median_filtering,
    )
    return np.stack([solver.calc(first, second, None) for first, second in itertools.pairwise(frames)])
