"""TV-L1 optical flow on the CPU with numba: on one core, with the same bytes on every machine.

The scheme is that of `TVL1Params`. It is fast because the primal and the dual step of a row run in one loop of vector
instructions, each frame is reduced and differentiated once for both pairs that contain it, and a warp ends as soon as
an iteration hardly changes the flow.
"""

import itertools
from typing import Any

import numpy as np

from lgd.pipeline.machine_code import cache_machine_code
from lgd.preprocessing.flow import numba_kernels, numba_median
from lgd.preprocessing.flow.numba_kernels import (
    LANES,
    ONE,
    ZERO,
    Array,
    Indices,
    differentiate,
    iterate,
    kernel,
    resize,
    warp,
)
from lgd.preprocessing.flow.numba_median import median
from lgd.preprocessing.flow.params import TVL1Params

MIN_SIDE = 16  # pixels: minimum side of a reduced scale


@kernel
def _solve_scale(
    image: Array, second: Array, u: Array, p: Array, data: Array, change: Array, starts: Indices, weights: Array,
    inside: Array, warped: Array, columns: Array, warps: int, limit: np.float32, inner: int, outer: int,
    median_size: int, lambda_theta: np.float32, theta: np.float32, step: np.float32,
) -> None:  # fmt: skip
    """Improve the flow u of one scale by warps, in place (Sanchez et al. 2013, algorithm 1).

    image: the first frame; second: the second frame with its gradients; limit: a warp ends when an iteration changes
    the flow by at most this sum of squares; inner, outer: maximum numbers of iterations; p to columns: work arrays.
    """
    width = image.shape[1]
    p[:] = ZERO
    for _ in range(warps):
        warp(image, second, u, data, starts, weights, inside, warped)
        for _ in range(outer):
            if median_size > 1:
                median(u, width, median_size, columns)
            if iterate(u, p, data, change, width, limit, inner, lambda_theta, theta, step) <= limit:
                break


class _Scale:
    """The arrays of one scale of the pyramid: two frames, used in turn, the flow, and the solver's work arrays."""

    def __init__(self, height: int, width: int, median: int):
        pitch = LANES + -(-width // LANES) * LANES + LANES
        self.images = [np.empty((height, width), np.float32) for _ in range(2)]
        self.gradients = [np.empty((height + 3, width + 3, 4), np.float32) for _ in range(2)]
        self.flow = _aligned_zeros(2, height + 1, pitch)
        self.inner_flow = self.flow[:, 1:, LANES : LANES + width]
        self.work_arrays = (
            _aligned_zeros(4, height + 1, pitch),  # p
            _aligned_zeros(4, height, pitch),  # data
            _aligned_zeros(pitch),  # change
            np.empty(width, np.int32),  # starts
            np.empty(8 * width, np.float32),  # weights
            np.empty(width, np.float32),  # inside
            np.empty(4 * width, np.float32),  # warped
            _aligned_zeros(median + 2, pitch),  # columns
        )


def _aligned_zeros(*shape: int) -> np.ndarray:
    """Return zeros (float32) that start on a cache line, which makes the iterations twice as fast."""
    size = int(np.prod(shape))
    buffer = np.zeros(size + LANES, np.float32)
    begin = -buffer.ctypes.data % (4 * LANES) // 4
    return buffer[begin : begin + size].reshape(shape)


def flow_of_clip(frames: np.ndarray, params: TVL1Params) -> np.ndarray:
    """Return the flow of a clip: uint8 T x H x W -> float32 (T - 1) x H x W x 2; see `tvl1.compute_flow`."""
    height, width = frames.shape[1:]
    scales = [_Scale(height, width, params.median_filtering)]
    for _ in range(params.scales - 1):
        height, width = round(height * params.scale_step), round(width * params.scale_step)
        if min(height, width) < MIN_SIDE:
            break
        scales.append(_Scale(height, width, params.median_filtering))

    flow = np.empty((len(frames) - 1, *frames.shape[1:], 2), np.float32)
    _load_frame(scales, 0, frames[0], params)
    for pair in range(len(flow)):
        _load_frame(scales, (pair + 1) % 2, frames[pair + 1], params)
        _solve_pair(scales, pair % 2, params)
        flow[pair] = np.moveaxis(scales[0].inner_flow, 0, -1)
    return flow


def _load_frame(scales: list[_Scale], slot: int, frame: np.ndarray, params: TVL1Params) -> None:
    """Write a frame, reduced to each scale, and its gradients to one of the two slots of the scales."""
    scales[0].images[slot][:] = frame
    for finer, coarser in itertools.pairwise(scales):
        resize(finer.images[slot], coarser.images[slot], 1 / params.scale_step, 1 / params.scale_step, ONE)
    for scale in scales:
        differentiate(scale.images[slot], scale.gradients[slot])


def _solve_pair(scales: list[_Scale], first: int, params: TVL1Params) -> None:
    """Compute the flow of a pair from the coarsest scale to the finest.

    first: slot of the pair's first frame; the second frame is in the other slot.
    """
    coarser: _Scale | None = None
    for scale in reversed(scales):
        height, width = scale.images[0].shape
        if coarser is None:
            scale.inner_flow[:] = 0
        else:
            rows, columns = coarser.images[0].shape
            gain = np.float32(1 / params.scale_step)  # converts pixels of the coarser scale to pixels of this one
            for k in range(2):
                resize(coarser.inner_flow[k], scale.inner_flow[k], rows / height, columns / width, gain)
        _solve_scale(
            scale.images[first],
            scale.gradients[1 - first],
            scale.flow,
            *scale.work_arrays,
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


compiled: tuple[Any, ...] = (_solve_scale, resize, differentiate)  # numba's dispatchers, see `kernel`
cache_machine_code("lgd-tvl1", compiled, (__file__, numba_kernels.__file__, numba_median.__file__))
