"""Compiled loops of the TV-L1 solver for the CPU: resampling and gradients of frames.

Results do not depend on the width of the machine's vectors: operations are never re-associated or contracted (no
fastmath), and sums run in a fixed order.

numba compiles no keyword-only parameters, so all parameters are positional.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.core.compiler import Compiler

from lgd.preprocessing.flow.numba_vectors import Array

Indices = npt.NDArray[np.int32]
Function = TypeVar("Function", bound=Callable[..., Any])

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class _NoAlias(Compiler):
    """Compile under the assumption that an array that a function writes overlaps none of its other arguments.

    Without it, loops over a dozen rows are not vectorized.
    """

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ) -> None:
        flags.noalias = True
        super().__init__(  # type: ignore[no-untyped-call]  # numba's compiler class has no annotations
            typingctx, targetctx, library, args, return_type, flags, locals
        )


# Decorators of compiled functions. To mypy they return the function unchanged: a compiled function takes and returns
# the same types.
kernel = cast("Callable[[Function], Function]", njit(nogil=True, error_model="numpy"))
inlined = cast("Callable[[Function], Function]", njit(nogil=True, error_model="numpy", forceinline=True))
row_kernel = cast(
    "Callable[[Function], Function]",
    njit(nogil=True, error_model="numpy", pipeline_class=_NoAlias, forceinline=True),
)


@row_kernel
def _blend_rows(upper: Array, lower: Array, fraction: np.float32, out: Array) -> None:
    for x in range(len(out)):
        out[x] = upper[x] + fraction * (lower[x] - upper[x])


@row_kernel
def _blend_columns(row: Array, left: Indices, fraction: Array, out: Array) -> None:
    for x in range(len(out)):
        out[x] = row[left[x]] + fraction[x] * (row[left[x] + 1] - row[left[x]])


@kernel
def resize(source: Array, target: Array, step_y: float, step_x: float, gain: np.float32) -> None:
    """Bilinear resampling times gain; pixel centers at half-integers: target pixel t lies at (t + 1/2) step - 1/2."""
    rows, columns = source.shape
    height, width = target.shape
    row = np.empty(columns + 1, np.float32)
    left = np.empty(width, np.int32)
    fraction = np.empty(width, np.float32)
    for x in range(width):
        at = min(max((x + 0.5) * step_x - 0.5, 0.0), columns - 1.0)
        left[x] = int(at)
        fraction[x] = at - int(at)
    for y in range(height):
        at = min(max((y + 0.5) * step_y - 0.5, 0.0), rows - 1.0)
        upper = int(at)
        _blend_rows(source[upper], source[min(upper + 1, rows - 1)], np.float32(at - upper), row[:columns])
        for x in range(columns):
            row[x] *= gain
        row[columns] = row[columns - 1]
        _blend_columns(row, left, fraction, target[y])


@kernel
def differentiate(image: Array, out: Array) -> None:
    """Write for each pixel of a frame its gray value, central differences in x and y, and 0; borders are repeated.

    out: (height + 3) x (width + 3) x 4; one extra row and column before and two after, for the cubic taps.
    """
    height, width = image.shape
    for y in range(height + 3):
        row = min(max(y - 1, 0), height - 1)
        up, down = max(row - 1, 0), min(row + 1, height - 1)
        for x in range(width + 3):
            at = min(max(x - 1, 0), width - 1)
            out[y, x, 0] = image[row, at]
            out[y, x, 1] = HALF * (image[row, min(at + 1, width - 1)] - image[row, max(at - 1, 0)])
            out[y, x, 2] = HALF * (image[down, at] - image[up, at])
            out[y, x, 3] = ZERO
