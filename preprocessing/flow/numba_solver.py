"""TV-L1 optical flow on the CPU with numba: on one core, with the same bytes on every machine.

The scheme is that of `TVL1Params`. It is fast because the primal and the dual step of a row run in one loop of vector
instructions, several iterations run on rows that are in the cache, each frame is reduced and differentiated once for
both pairs that contain it, and a warp ends as soon as an iteration hardly changes the flow.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgd.pipeline.machine_code import cache_machine_code
from lgd.preprocessing.flow import (
    numba_iterations,
    numba_kernels,
    numba_layout,
    numba_median,
    numba_networks,
    numba_vectors,
    numba_warp,
)
from lgd.preprocessing.flow.numba_iterations import iterate
from lgd.preprocessing.flow.numba_kernels import ONE, ZERO, Indices, differentiate, kernel, resize
from lgd.preprocessing.flow.numba_layout import IX, MAX_IN_FLIGHT, P11, Layout, layout_of
from lgd.preprocessing.flow.numba_median import median, scratch_rows
from lgd.preprocessing.flow.numba_vectors import LANES, Array
from lgd.preprocessing.flow.numba_warp import CHANNELS, TAPS, warp
from lgd.preprocessing.flow.params import TVL1Params

MIN_SIDE = 16  # pixels: minimum side of a reduced scale


@kernel
def _solve_scale(
    image: Array, second: Array, fields: Array, layout: Layout, change: Array, starts: Indices, columns: Array,
    rows: Array, inside: Array, warped: Array, scratch: Array, warps: int, limit: np.float32, inner: int, outer: int,
    median_size: int, lambda_theta: np.float32, theta: np.float32, step: np.float32,
) -> None:  # fmt: skip
    """Improve the flow of one scale by warps, in place (Sanchez et al. 2013, algorithm 1).

    image: the first frame; second: the second frame with its gradients; fields: the flow, and the solver's other
    variables; limit: a warp ends when an iteration changes the flow by at most this sum of squares; inner, outer:
    maximum numbers of iterations; change to scratch: work arrays.
    """
    fields[P11 * layout.plane : IX * layout.plane] = ZERO
    for _ in range(warps):
        warp(image, second, fields, layout, starts, columns, rows, inside, warped)
        for _ in range(outer):
            if median_size > 1:
                median(fields, layout, median_size, scratch)
            if iterate(fields, layout, change, limit, inner, lambda_theta, theta, step) <= limit:
                break


class _Scale:
    """The arrays of one scale of the pyramid: two frames, used in turn, and the solver's variables."""

    def __init__(self, layout: Layout, image_slots: list[Array], gradient_slots: list[Array], fields: Array):
        height, width, pitch, plane, *_ = layout
        self.layout = layout
        self.images = [image.reshape(height, width) for image in image_slots]
        self.gradients = [slot.reshape(height + TAPS - 1, width + TAPS - 1, CHANNELS) for slot in gradient_slots]
        self.fields = fields
        rows = [fields[start + pitch : start + (height + 1) * pitch] for start in (0, plane)]
        self.flow = [of_rows.reshape(height, pitch)[:, LANES : LANES + width] for of_rows in rows]


def _allocate(sizes: Sequence[int]) -> list[Array]:
    """Return 1-D arrays (float32, any values) of these sizes that start on cache lines.

    They are parts of one array: the system takes many small ones back after each clip and has to provide their pages
    again. Vectors of the last pixels may extend beyond an array by less than their length."""
    starts = [0, *itertools.accumulate((size // LANES + 2) * LANES for size in sizes)]
    buffer = np.empty(starts[-1] + LANES, np.float32)
    buffer = buffer[-buffer.ctypes.data % (4 * LANES) // 4 :]
    return [buffer[start : start + size] for start, size in zip(starts, sizes, strict=False)]


class _Solver:
    """The pyramid of two frames, and the work arrays that all scales use."""

    def __init__(self, height: int, width: int, params: TVL1Params):
        self.params = params
        layouts = [layout_of(height, width)]
        for _ in range(params.scales - 1):
            height, width = round(height * params.scale_step), round(width * params.scale_step)
            if min(height, width) < MIN_SIDE:
                break
            layouts.append(layout_of(height, width))
        row = -(-layouts[0].width // LANES) * LANES
        work_sizes = (
            MAX_IN_FLIGHT * layouts[0].pitch,  # change
            row,  # starts
            TAPS * row,  # columns
            TAPS * row,  # rows
            row,  # inside
            CHANNELS * row,  # warped
            scratch_rows(params.median_filtering) * layouts[0].pitch,  # scratch
        )
        sizes = [*work_sizes]
        for height, width, *_ in layouts:
            gradients = (height + TAPS - 1) * (width + TAPS - 1) * CHANNELS
            sizes += [height * width] * 2 + [gradients] * 2
        sizes += [layout.size for layout in layouts]
        arrays = iter(_allocate(sizes))

        def take(count: int) -> list[Array]:
            return list(itertools.islice(arrays, count))

        change, starts, *others = take(len(work_sizes))
        self.work_arrays: tuple[Any, ...] = (change, starts.view(np.int32), *others)
        frames = [(take(2), take(2)) for _ in layouts]
        self.scales = [
            _Scale(layout, *of_scale, fields) for layout, of_scale, fields in zip(layouts, frames, arrays, strict=True)
        ]

    def load(self, slot: int, frame: np.ndarray) -> None:
        """Write a frame, reduced to each scale, and its gradients to one of the two slots of the scales."""
        step = 1 / self.params.scale_step
        self.scales[0].images[slot][:] = frame
        for finer, coarser in itertools.pairwise(self.scales):
            resize(finer.images[slot], coarser.images[slot], step, step, ONE)
        for scale in self.scales:
            differentiate(scale.images[slot], scale.gradients[slot])

    def solve(self, first: int) -> list[Array]:
        """Compute the flow of a pair from the coarsest scale to the finest; return its components.

        first: slot of the pair's first frame; the second frame is in the other slot.
        """
        params = self.params
        coarser: _Scale | None = None
        for scale in reversed(self.scales):
            height, width = scale.images[0].shape
            if coarser is None:
                for component in scale.flow:
                    component[:] = 0
            else:
                rows, columns = coarser.images[0].shape
                gain = np.float32(1 / params.scale_step)  # converts pixels of the coarser scale to pixels of this one
                for source, target in zip(coarser.flow, scale.flow, strict=True):
                    resize(source, target, rows / height, columns / width, gain)
            solve_scale: Any = _solve_scale
            solve_scale(
                scale.images[first],
                scale.gradients[1 - first],
                scale.fields,
                scale.layout,
                *self.work_arrays,
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
        return self.scales[0].flow


def flow_of_clip(frames: np.ndarray, params: TVL1Params) -> np.ndarray:
    """Return the flow of a clip: uint8 T x H x W -> float32 (T - 1) x H x W x 2; see `tvl1.compute_flow`."""
    count, height, width = frames.shape
    solver = _Solver(height, width, params)
    flow = np.empty((count - 1, height, width, 2), np.float32)
    solver.load(0, frames[0])
    for pair in range(len(flow)):
        solver.load((pair + 1) % 2, frames[pair + 1])
        flow[pair, ..., 0], flow[pair, ..., 1] = solver.solve(pair % 2)
    return flow


compiled: tuple[Any, ...] = (_solve_scale, resize, differentiate)  # numba's dispatchers, see `kernel`
modules = (
    numba_vectors,
    numba_kernels,
    numba_layout,
    numba_networks,
    numba_iterations,
    numba_median,
    numba_warp,
)
cache_machine_code("lgd-tvl1", compiled, [__file__, *(module.__file__ for module in modules)])
