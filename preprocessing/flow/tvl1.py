"""TV-L1 optical flow of clips, with a choice of backends.

flow = compute_flow(frames)  # uint8 T x H x W, gray -> float32 (T - 1) x H x W x 2, in pixels
"""

import importlib.metadata
import itertools
import time
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.flow_code import encode
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.triton_support import reason_against_triton

BACKENDS = ("numba", "opencv", "torch")


def solver_version(backend: str, device: str | None = None) -> str:
    """Return the version of the solver for a stream spec: it changes whenever the bytes of the flow may change.

    The numba solver uses IEEE arithmetic in a fixed order, so its own version is sufficient. The kernels of the other
    two backends come from their libraries. Those of torch also depend on the type of device, and on a GPU on whether
    this machine can compile Triton's.
    """
    if backend == "numba":
        return "1"
    if backend == "opencv":
        return cv2.__version__
    torch = f"torch {importlib.metadata.version('torch')}"
    if device == "cuda" and not reason_against_triton():
        return f"2 ({torch}, triton {importlib.metadata.version('triton')}, cuda)"
    return f"1 ({torch}, {device})"


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
    return next(compute_flows([frames], params, backend, device=device))


def compute_flows(
    clips: Iterable[np.ndarray], params: TVL1Params = TVL1Params(), backend: str = "numba", *, device: str | None = None
) -> Iterator[np.ndarray]:
    """Yield the flow of each clip in order, as `compute_flow` does; on a GPU, clips are solved in batches.

    The torch backend reads clips ahead until a batch is full and the next one is uploaded: some 900 pairs of 160 x 120
    on a GPU. Raises the errors of `compute_flow`, for a clip when it is read.
    """
    _check_backend(backend, device)
    if backend == "torch":
        from lgd.preprocessing.flow import torch_batches  # importing torch takes seconds

        yield from torch_batches.flows(map(_checked, clips), params, torch_batches.torch_device(device))
        return
    for frames in clips:
        yield _flow_on_cpu(_checked(frames), params, backend)


def compute_codes(
    clips: Iterable[np.ndarray],
    params: TVL1Params = TVL1Params(),
    backend: str = "numba",
    *,
    device: str | None = None,
    bound: float,
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield `flow_code.encode(flow, bound)` for the flow of each clip: its planes, and the fraction of clipped vectors.

    The torch backend encodes on its device, so that a GPU sends a quarter of the bytes; the bytes are the same. Reads
    ahead, and raises errors, as `compute_flows`, and as `flow_code.encode`.
    """
    _check_backend(backend, device)
    if backend == "torch":
        from lgd.preprocessing.flow import torch_batches

        torch_device = torch_batches.torch_device(device)
        yield from torch_batches.codes(map(_checked, clips), params, torch_device, bound=bound)
        return
    for frames in clips:
        yield encode(_flow_on_cpu(_checked(frames), params, backend), bound)


def warm_up(backend: str = "numba", device: str | None = None, params: TVL1Params = TVL1Params()) -> float:
    """Prepare a backend: compile it, or load the compiled code from the cache. Returns the seconds it took.

    Once per process and parameters: kernels of a GPU depend on the size of the median filter, but not on the sizes of
    the frames and the number of pairs.
    """
    start = time.perf_counter()
    # Several pairs of frames that are not square: compilers make special code for one pair and for equal sides.
    compute_flow(np.zeros((4, 48, 64), np.uint8), params, backend, device=device)
    return time.perf_counter() - start


def _check_backend(backend: str, device: str | None) -> None:
    if backend not in BACKENDS:
        raise UsageError(f"unknown flow backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if device is not None and backend != "torch":
        raise UsageError(f"the {backend} flow backend runs on the CPU; device {device!r} is for the torch backend")


def _checked(frames: np.ndarray) -> np.ndarray:
    if frames.dtype != np.uint8 or frames.ndim != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 T x H x W, not {frames.dtype} {' x '.join(map(str, frames.shape))}")
    return frames


def _flow_on_cpu(frames: np.ndarray, params: TVL1Params, backend: str) -> np.ndarray:
    if len(frames) == 1:
        return np.empty((0, *frames.shape[1:], 2), np.float32)
    if backend == "opencv":
        return _opencv_flow(frames, params)
    from lgd.preprocessing.flow import numba_solver  # importing numba takes half a second

    return numba_solver.flow_of_clip(frames, params)


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
