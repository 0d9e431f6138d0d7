"""The speed of TV-L1's iterations on the CPU beside what one core can do.

Two bounds hold for an iteration: the processor's multiplications and additions per second (with fused multiply-adds,
which the solver does not use: they round differently), and the time of the division and the two square roots per pixel,
which one unit of the core computes. Both are measured with the vectors of the solver.

The iterations are measured without their stopping rule. On frames larger than the cache they are slower with it: an
iteration then starts later after the one before, when the rows have left the cache.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lgd.preprocessing.flow import numba_solver
from lgd.preprocessing.flow.numba_iterations import iterate
from lgd.preprocessing.flow.numba_kernels import ONE, kernel
from lgd.preprocessing.flow.numba_vectors import (
    LANES,
    Array,
    load,
    multiply_add,
    splat,
    sqrt,
    store,
)
from lgd.preprocessing.flow.numba_warp import warp
from lgd.preprocessing.flow.params import TVL1Params

FLOP_PER_PIXEL = 59  # of an iteration, each operation on a number counted as one, see numba_iterations
ITERATIONS = 30
ROUNDS = 7  # the fastest counts: other work on the machine only adds time
STEPS = 100_000  # of the loops that measure the processor


@dataclass(frozen=True, kw_only=True)
class CorePeak:
    """What one core can do."""

    gflops: float
    """Fused multiply-adds counted as two operations, GFLOP/s, measured."""
    division_ns: float
    """Time of a division and two square roots, nanoseconds per pixel, measured."""


@dataclass(frozen=True, kw_only=True)
class IterationSpeed:
    """Speed of the iterations at one size, without their stopping rule."""

    ns_per_pixel: float
    """Time of an iteration per pixel, nanoseconds."""
    gflops: float
    """Operations per second, GFLOP/s."""
    peak_share: float
    """Fraction of the core's peak of fused multiply-adds."""
    division_share: float
    """Fraction of the time that the division and the two square roots per pixel take at least."""


@kernel
def _multiply_adds(values: Array, steps: int) -> None:
    """Run ten independent chains of fused multiply-adds."""
    factor, term = splat(np.float32(0.5)), load(values, 0)
    a, b, c, d, e = term, term + term, term * factor, term - factor, term + factor
    f, g, h, i, j = a * a, b * b, c * c, d * d, e * e
    for _ in range(steps):
        a, b = multiply_add(a, factor, term), multiply_add(b, factor, term)
        c, d = multiply_add(c, factor, term), multiply_add(d, factor, term)
        e, f = multiply_add(e, factor, term), multiply_add(f, factor, term)
        g, h = multiply_add(g, factor, term), multiply_add(h, factor, term)
        i, j = multiply_add(i, factor, term), multiply_add(j, factor, term)
    store(values, 0, a + b + c + d + e + f + g + h + i + j)


@kernel
def _divisions(values: Array, steps: int) -> None:
    """Run three independent chains of two square roots and one division, of values from 1 to 2."""
    one, a = splat(ONE), load(values, 0)
    b, c = a * a, a + a
    for _ in range(steps):
        a, b, c = one / a, one / b, one / c
        a, b, c = sqrt(a), sqrt(b), sqrt(c)
        a, b, c = sqrt(a), sqrt(b), sqrt(c)
    store(values, 0, a + b + c)


def _fastest(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of ROUNDS calls, after one that compiles."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_core() -> CorePeak:
    """Measure what one core can do."""
    values = np.full(LANES, 1.5, np.float32)
    multiply_adds = _fastest(lambda: _multiply_adds(values, STEPS))
    values[:] = 1.5
    divisions = _fastest(lambda: _divisions(values, STEPS))
    return CorePeak(
        gflops=2 * 10 * LANES * STEPS / multiply_adds / 1e9, division_ns=1e9 * divisions / (3 * LANES * STEPS)
    )


def measure_iterations(clips: Sequence[np.ndarray], core: CorePeak) -> IterationSpeed:
    """Measure the iterations of the finest scale on the first pair of each clip (uint8 T x H x W, of one size)."""
    params = TVL1Params()
    height, width = clips[0].shape[1:]
    solver = numba_solver._Solver(height, width, params)
    scale, (change, *work_arrays, _) = solver.scales[0], solver.work_arrays
    steps = np.array([params.lambda_ * params.theta, params.theta, params.tau / params.theta], np.float32)
    never = np.float32(-1)  # no change is that small
    seconds = []
    for frames in clips:
        solver.load(0, frames[0])
        solver.load(1, frames[1])
        solver.solve(0)
        warp(scale.images[0], scale.gradients[1], scale.fields, scale.layout, *work_arrays)
        seconds.append(_fastest(lambda: iterate(scale.fields, scale.layout, change, never, ITERATIONS, *steps)))
    ns = 1e9 * float(np.median(seconds)) / (ITERATIONS * height * width)
    gflops = FLOP_PER_PIXEL / ns
    return IterationSpeed(
        ns_per_pixel=ns, gflops=gflops, peak_share=gflops / core.gflops, division_share=core.division_ns / ns
    )
