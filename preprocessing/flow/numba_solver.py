"""TV-L1 optical flow on the CPU: one core, the same bytes on every machine.

The scheme is that of TVL1Params. What makes it fast: the primal and the dual step of a row run in one loop of
vector instructions; frames are reduced and differentiated once and serve both pairs that they belong to; a warp ends
as soon as an iteration hardly moves the flow.
"""

import hashlib
import itertools
import os
from pathlib import Path

import numba
import numpy as np

from lgd.preprocessing.flow import numba_kernels as tvl1_kernels
from lgd.preprocessing.flow import numba_median as tvl1_median
from lgd.preprocessing.flow.numba_kernels import LANES, ONE, ZERO, differentiate, iterate, kernel, resize, warp
from lgd.preprocessing.flow.numba_median import median
from lgd.preprocessing.flow.params import TVL1Params

MIN_SIDE = 16  # pixels, of a reduced scale


@kernel
def _solve_scale(
    image, other, u, p, data, moved, starts, weights, inside, warped, columns,
    warps, limit, inner, outer, median_size, lt, theta, step,
):  # fmt: skip
    """Improves the flow u of one scale by warps, in place (Sanchez et al. 2013, algorithm 1)."""
    width = image.shape[1]
    p[:] = ZERO
    for _ in range(warps):
        warp(image, other, u, data, starts, weights, inside, warped)
        for _ in range(outer):
            if median_size > 1:
                median(u, width, median_size, columns)
            if iterate(u, p, data, moved, width, limit, inner, lt, theta, step) <= limit:
                break


class _Scale:
    """The arrays of one scale of the pyramid: two frames in turn, and what solving a pair needs."""

    def __init__(self, height: int, width: int, median: int):
        pitch = LANES + -(-width // LANES) * LANES + LANES
        self.images = [np.empty((height, width), np.float32) for _ in range(2)]
        self.gradients = [np.empty((height + 3, width + 3, 4), np.float32) for _ in range(2)]
        self.flow = _aligned_zeros(2, height + 1, pitch)
        self.inner_flow = self.flow[:, 1:, LANES : LANES + width]
        self.rest = (
            _aligned_zeros(4, height + 1, pitch),  # p
            _aligned_zeros(4, height, pitch),  # data
            _aligned_zeros(pitch),  # moved
            np.empty(width, np.int32),  # starts
            np.empty(8 * width, np.float32),  # weights
            np.empty(width, np.float32),  # inside
            np.empty(4 * width, np.float32),  # warped
            _aligned_zeros(median + 2, pitch),  # columns
        )


def _aligned_zeros(*shape: int) -> np.ndarray:
    """float32, starting on a cache line: twice as fast to iterate on as not."""
    size = int(np.prod(shape))
    buffer = np.zeros(size + LANES, np.float32)
    begin = -buffer.ctypes.data % (4 * LANES) // 4
    return buffer[begin : begin + size].reshape(shape)


def flow_of_clip(frames: np.ndarray, params: TVL1Params) -> np.ndarray:
    """uint8 T x H x W -> float32 (T - 1) x H x W x 2; see tvl1.compute_flow."""
    height, width = frames.shape[1:]
    scales = [_Scale(height, width, params.median_filtering)]
    for _ in range(params.scales - 1):
        height, width = round(height * params.scale_step), round(width * params.scale_step)
        if min(height, width) < MIN_SIDE:
            break
        scales.append(_Scale(height, width, params.median_filtering))

    flow = np.empty((len(frames) - 1, *frames.shape[1:], 2), np.float32)
    _enter_frame(scales, 0, frames[0], params)
    for pair in range(len(flow)):
        _enter_frame(scales, (pair + 1) % 2, frames[pair + 1], params)
        _solve_pair(scales, pair % 2, params)
        flow[pair] = np.moveaxis(scales[0].inner_flow, 0, -1)
    return flow


def _enter_frame(scales: list[_Scale], slot: int, frame: np.ndarray, params: TVL1Params) -> None:
    scales[0].images[slot][:] = frame
    for finer, coarser in itertools.pairwise(scales):
        resize(finer.images[slot], coarser.images[slot], 1 / params.scale_step, 1 / params.scale_step, ONE)
    for scale in scales:
        differentiate(scale.images[slot], scale.gradients[slot])


def _solve_pair(scales: list[_Scale], first: int, params: TVL1Params) -> None:
    """From the coarsest scale to the finest. The first frame of the pair is in slot first, the second in the other."""
    coarser: _Scale | None = None
    for scale in reversed(scales):
        height, width = scale.images[0].shape
        if coarser is None:
            scale.inner_flow[:] = 0
        else:
            rows, columns = coarser.images[0].shape
            gain = np.float32(1 / params.scale_step)  # a pixel of this scale is so much smaller
            for k in range(2):
                resize(coarser.inner_flow[k], scale.inner_flow[k], rows / height, columns / width, gain)
        _solve_scale(  # type: ignore[call-arg]
            scale.images[first],
            scale.gradients[1 - first],
            scale.flow,
            *scale.rest,
            params.warps,
            np.float32(params.epsilon**2 * height * width),
            params.inner_iterations,
            params.outer_iterations,
            params.median_filtering,
            np.float32(params.lambda_ * params.theta),
            np.float32(params.theta),
            np.float32(params.tau / params.theta),
        )
        coarser = scale


def _keep_machine_code() -> None:
    """Caches what is compiled, where workers that start at the same time cannot disturb each other.

    numba writes its files aside and renames them, but processes with different processors that share a folder may
    overwrite each other's code, and it does not notice a change of a file that is imported. So the sources, numba and
    the processor name the folder. Where there is no folder to write to, every process compiles for itself.
    """
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    codegen = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256(repr((numba.__version__, codegen)).encode())
    for module in (__file__, tvl1_kernels.__file__, tvl1_median.__file__):
        digest.update(Path(module).read_bytes())
    folder = Path(base) / "lgd-tvl1" / digest.hexdigest()[:16]
    if not folder.is_absolute():  # the "~" of a user without a home
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    # numba knows only one folder for the whole process: lend it ours while these functions look where to cache.
    usual = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    try:
        for entry in (_solve_scale, resize, differentiate):
            entry.enable_caching()
    finally:
        numba.config.CACHE_DIR = usual  # type: ignore[attr-defined]


_keep_machine_code()
