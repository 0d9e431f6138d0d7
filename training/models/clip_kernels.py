"""Compiled loops of `clip_sums` for the CPU: arrays of N x S x C, where S is the frames, rows and columns of a clip;
those of `plane_...` are N x C x S.

Sums of up to ROWS rows, or PLANE numbers, are float32; sums of these are float64. numba compiles no keyword-only
parameters, so all parameters are positional.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from lgd.pipeline.machine_code import cache_machine_code

Array = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

ROWS = 64
PLANE = 2048

# To mypy it returns the function unchanged: a compiled function takes and returns the same types. fastmath only allows
# multiplications and additions to be contracted.
kernel = cast("Callable[[Function], Function]", njit(nogil=True, error_model="numpy", fastmath={"contract"}))
# Of sums along the fastest dimension: the additions may be done in another order, several at a time.
plane_kernel = cast(
    "Callable[[Function], Function]", njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
)


@kernel
def moments(x: Array, mean: Sums, var: Sums) -> None:
    """Write mean and variance of each clip and channel, N x C. Sums are of differences to the first row."""
    clips, rows, channels = x.shape
    shift, total, squares = (
        np.empty(channels, np.float32),
        np.empty(channels, np.float32),
        np.empty(channels, np.float32),
    )
    for n in range(clips):
        for c in range(channels):
            shift[c] = x[n, 0, c]
            mean[n, c] = 0.0
            var[n, c] = 0.0
        for first in range(0, rows, ROWS):
            total[:] = np.float32(0)
            squares[:] = np.float32(0)
            for s in range(first, min(first + ROWS, rows)):
                row = x[n, s]
                for c in range(channels):
                    difference = row[c] - shift[c]
                    total[c] += difference
                    squares[c] += difference * difference
            for c in range(channels):
                mean[n, c] += total[c]
                var[n, c] += squares[c]
        for c in range(channels):
            average = mean[n, c] / rows
            var[n, c] = max(var[n, c] / rows - average * average, 0.0)
            mean[n, c] = average + shift[c]


@kernel
def scale(x: Array, factor: Array, offset: Array, y: Array) -> None:
    """Write y = x factor + offset, with factor and offset N x C."""
    clips, rows, channels = x.shape
    for n in range(clips):
        f, o = factor[n], offset[n]
        for s in range(rows):
            row, result = x[n, s], y[n, s]
            for c in range(channels):
                result[c] = row[c] * f[c] + o[c]


@kernel
def gradient_sums(gradient: Array, x: Array, center: Array, total: Sums, products: Sums) -> None:
    """Write the sums of gradient and of gradient (x - center), N x C."""
    clips, rows, channels = x.shape
    part, part_products = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(clips):
        middle = center[n]
        for c in range(channels):
            total[n, c] = 0.0
            products[n, c] = 0.0
        for first in range(0, rows, ROWS):
            part[:] = np.float32(0)
            part_products[:] = np.float32(0)
            for s in range(first, min(first + ROWS, rows)):
                g, row = gradient[n, s], x[n, s]
                for c in range(channels):
                    part[c] += g[c]
                    part_products[c] += g[c] * (row[c] - middle[c])
            for c in range(channels):
                total[n, c] += part[c]
                products[n, c] += part_products[c]


@kernel
def combine(gradient: Array, x: Array, a: Array, b: Array, c: Array, result: Array) -> None:
    """Write result = a gradient + b x + c, with a, b and c N x C."""
    clips, rows, channels = x.shape
    for n in range(clips):
        a_n, b_n, c_n = a[n], b[n], c[n]
        for s in range(rows):
            g, row, out = gradient[n, s], x[n, s], result[n, s]
            for k in range(channels):
                out[k] = a_n[k] * g[k] + b_n[k] * row[k] + c_n[k]


@plane_kernel
def plane_moments(x: Array, mean: Sums, var: Sums) -> None:
    """Write mean and variance of each clip and channel, N x C. Sums are of differences to the first number."""
    clips, channels, numbers = x.shape
    for n in range(clips):
        for c in range(channels):
            plane, shift = x[n, c], x[n, c, 0]
            total, squares = np.float64(0), np.float64(0)
            for first in range(0, numbers, PLANE):
                part, part_squares = np.float32(0), np.float32(0)
                for s in range(first, min(first + PLANE, numbers)):
                    difference = plane[s] - shift
                    part += difference
                    part_squares += difference * difference
                total += part
                squares += part_squares
            average = total / numbers
            var[n, c] = max(squares / numbers - average * average, 0.0)
            mean[n, c] = average + shift


@kernel
def plane_scale(x: Array, factor: Array, offset: Array, y: Array) -> None:
    """Write y = x factor + offset, with factor and offset N x C."""
    clips, channels, numbers = x.shape
    for n in range(clips):
        for c in range(channels):
            plane, result, f, o = x[n, c], y[n, c], factor[n, c], offset[n, c]
            for s in range(numbers):
                result[s] = plane[s] * f + o


@plane_kernel
def plane_gradient_sums(gradient: Array, x: Array, center: Array, total: Sums, products: Sums) -> None:
    """Write the sums of gradient and of gradient (x - center), N x C."""
    clips, channels, numbers = x.shape
    for n in range(clips):
        for c in range(channels):
            g, plane, middle = gradient[n, c], x[n, c], center[n, c]
            all_total, all_products = np.float64(0), np.float64(0)
            for first in range(0, numbers, PLANE):
                part, part_products = np.float32(0), np.float32(0)
                for s in range(first, min(first + PLANE, numbers)):
                    part += g[s]
                    part_products += g[s] * (plane[s] - middle)
                all_total += part
                all_products += part_products
            total[n, c] = all_total
            products[n, c] = all_products


@kernel
def plane_combine(gradient: Array, x: Array, a: Array, b: Array, c: Array, result: Array) -> None:
    """Write result = a gradient + b x + c, with a, b and c N x C."""
    clips, channels, numbers = x.shape
    for n in range(clips):
        for k in range(channels):
            g, plane, out = gradient[n, k], x[n, k], result[n, k]
            a_k, b_k, c_k = a[n, k], b[n, k], c[n, k]
            for s in range(numbers):
                out[s] = a_k * g[s] + b_k * plane[s] + c_k


KERNELS = (moments, scale, gradient_sums, combine)
PLANE_KERNELS = (plane_moments, plane_scale, plane_gradient_sums, plane_combine)
cache_machine_code("lgd-normalization", (*KERNELS, *PLANE_KERNELS), (__file__,))
