"""Compiled loops of the TV-L1 solver for the CPU: iterations, warping, resampling.

The arrays of the iterations have a margin of LANES pixels on both sides of each row, so that neighbors exist at the
borders and rows start on cache lines, and one row above the first. Results do not depend on the width of the machine's
vectors: operations are never re-associated or contracted (no fastmath), and sums run in a fixed order.

numba compiles no keyword-only parameters, so all parameters are positional.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core.compiler import Compiler
from numba.extending import intrinsic

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]
Function = TypeVar("Function", bound=Callable[..., Any])

LANES = 16  # pixels of a row that are computed in one step: 64 bytes, a cache line and the widest vector
CUBIC = np.float32(-0.75)  # slope parameter of the cubic convolution kernel (Keys 1981), as in OpenCV

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
row_kernel = cast(
    "Callable[[Function], Function]",
    njit(nogil=True, error_model="numpy", pipeline_class=_NoAlias, forceinline=True),
)


@row_kernel
def _primal_dual_row(
    u1: Array, u2: Array, p11: Array, p12: Array, p21: Array, p22: Array,
    a1: Array, a2: Array, q11: Array, q12: Array, q21: Array, q22: Array,
    ix: Array, iy: Array, inv: Array, rho0: Array, change: Array,
    lambda_theta: np.float32, theta: np.float32, step: np.float32,
) -> None:  # fmt: skip
    """Primal step on a row, then dual step on the row above, which depends on it.

    u, p: flow and dual variables of the row (p11 and p21 start one pixel to the left of it); a, q: those of the row
    above. change: squared change of the flow, added up per column.
    """
    for x in range(len(u1)):
        x1, x2 = u1[x], u2[x]
        # The thresholding step of Zach et al. 2007 (Proposition 3), written as one clamp.
        d = -(rho0[x] + ix[x] * x1 + iy[x] * x2) * inv[x]
        d = min(max(d, -lambda_theta), lambda_theta)
        old12, old22 = q12[x], q22[x]
        new1 = x1 + d * ix[x] + theta * (p11[x + 1] - p11[x] + p12[x] - old12)
        new2 = x2 + d * iy[x] + theta * (p21[x + 1] - p21[x] + p22[x] - old22)
        u1[x], u2[x] = new1, new2
        change[x] += (new1 - x1) * (new1 - x1) + (new2 - x2) * (new2 - x2)

        right1, down1 = a1[x + 1] - a1[x], new1 - a1[x]
        right2, down2 = a2[x + 1] - a2[x], new2 - a2[x]
        norm1 = ONE + step * np.sqrt(right1 * right1 + down1 * down1)
        norm2 = ONE + step * np.sqrt(right2 * right2 + down2 * down2)
        both = ONE / (norm1 * norm2)  # one division instead of two
        q11[x] = (q11[x] + step * right1) * (both * norm2)
        q12[x] = (old12 + step * down1) * (both * norm2)
        q21[x] = (q21[x] + step * right2) * (both * norm1)
        q22[x] = (old22 + step * down2) * (both * norm1)


@row_kernel
def _dual_last_row(a1: Array, a2: Array, q11: Array, q21: Array, step: np.float32) -> None:
    """Dual step on the last row, which has no gradient in y."""
    for x in range(len(q11)):
        right1, right2 = a1[x + 1] - a1[x], a2[x + 1] - a2[x]
        q11[x] = (q11[x] + step * right1) / (ONE + step * abs(right1))
        q21[x] = (q21[x] + step * right2) / (ONE + step * abs(right2))


@kernel
def iterate(
    u: Array, p: Array, data: Array, change: Array, width: int, limit: np.float32, iterations: int,
    lambda_theta: np.float32, theta: np.float32, step: np.float32,
) -> np.float32:  # fmt: skip
    """Run primal-dual iterations until one changes the flow by at most `limit` (the sum of squares).

    iterations: their maximum number. Returns the change of the last one.
    """
    height = data.shape[1]
    first, last = LANES, LANES + width
    end = first + (width + LANES - 1) // LANES * LANES
    total = ZERO
    for _ in range(iterations):
        change[:] = ZERO
        for y in range(1, height + 1):
            above = y - 1
            _primal_dual_row(
                u[0, y, first:end], u[1, y, first:end],
                p[0, y, first - 1 : end], p[1, y, first:end], p[2, y, first - 1 : end], p[3, y, first:end],
                u[0, above, first : end + 1], u[1, above, first : end + 1],
                p[0, above, first:end], p[1, above, first:end], p[2, above, first:end], p[3, above, first:end],
                data[0, above, first:end], data[1, above, first:end], data[2, above, first:end],
                data[3, above, first:end], change[first:end], lambda_theta, theta, step,
            )  # fmt: skip
            # No gradient across the right border.
            u[0, y, last] = u[0, y, last - 1]
            u[1, y, last] = u[1, y, last - 1]
        _dual_last_row(
            u[0, height, first : end + 1],
            u[1, height, first : end + 1],
            p[0, height, first:end],
            p[2, height, first:end],
            step,
        )
        p[:, 0] = ZERO  # the row above the first
        total = ZERO
        for x in range(first, last):
            total += change[x]
        if total <= limit:
            break
    return total


def _sum_taps_intrinsic(
    typingctx: Any, image: Any, start: Any, pitch: Any, weights: Any, at: Any, out: Any
) -> tuple[Any, Callable[..., Any]]:
    """out[4 at : 4 at + 4] = weighted sum of 4 x 4 pixels of 4 floats, the first of which starts at image[start].

    pitch: floats between the starts of two rows. weights[8 at : 8 at + 8]: of the columns, then of the rows. A row of
    four pixels is one vector of 16 floats, which LLVM's loop vectorizer does not find.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(array: int, index: Any, count: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.bitcast(builder.gep(data, [index]), ir.VectorType(ir.FloatType(), count).as_pointer())

        def select(vector: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        def constant(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        first_weight = builder.mul(args[4], constant(8))
        columns = builder.load(pointer(3, first_weight, 4), align=4)
        rows = builder.load(pointer(3, builder.add(first_weight, constant(4)), 4), align=4)
        total = None
        for row in range(4):
            begin = builder.add(args[1], builder.mul(args[2], constant(row)))
            term = builder.fmul(builder.load(pointer(0, begin, 16), align=4), select(rows, [row] * 16))
            total = term if total is None else builder.fadd(total, term)
        total = builder.fmul(total, select(columns, [lane // 4 for lane in range(16)]))
        total = builder.fadd(select(total, list(range(8))), select(total, list(range(8, 16))))
        total = builder.fadd(select(total, list(range(4))), select(total, list(range(4, 8))))
        builder.store(total, pointer(5, builder.mul(args[4], constant(4)), 4), align=4)
        return context.get_dummy_value()

    return types.void(image, types.int64, types.int64, weights, types.int64, out), codegen


_sum_taps = cast("Callable[[Array, np.int64, int, Array, int, Array], None]", intrinsic(_sum_taps_intrinsic))


@row_kernel
def _taps_row(
    u1: Array, u2: Array, y: int, height: int, width: int, starts: Indices, weights: Array, inside: Array
) -> None:
    """For each pixel of row y, compute its position in the second frame and the weights of the taps at that position.

    inside: 1 where the position lies in the frame, else 0.
    """
    for x in range(width):
        to_x, to_y = np.float32(x) + u1[x], np.float32(y) + u2[x]
        # Written so that NaN gives pixel 0 and not an address outside the array.
        at_x = to_x if to_x > ZERO else ZERO
        at_x = at_x if at_x < np.float32(width - 1) else np.float32(width - 1)
        at_y = to_y if to_y > ZERO else ZERO
        at_y = at_y if at_y < np.float32(height - 1) else np.float32(height - 1)
        inside[x] = ONE if at_x == to_x and at_y == to_y else ZERO
        left, top = np.int32(at_x), np.int32(at_y)
        starts[x] = (top * np.int32(width + 3) + left) * np.int32(4)
        s, t = at_x - np.float32(left), at_y - np.float32(top)
        for k, f in ((0, s), (4, t)):
            g = ONE - f
            before, after = CUBIC * f * g * g, CUBIC * g * f * f
            center = ((CUBIC + np.float32(2)) * f - (CUBIC + np.float32(3))) * f * f + ONE
            weights[8 * x + k] = before
            weights[8 * x + k + 1] = center
            weights[8 * x + k + 2] = ONE - before - center - after
            weights[8 * x + k + 3] = after


@row_kernel
def _data_row(
    image: Array, warped: Array, inside: Array, u1: Array, u2: Array, ix: Array, iy: Array, inv: Array, rho0: Array
) -> None:
    """Compute the data term of a row from its warped pixels; its gradient is 0 where the flow leaves the frame."""
    for x in range(len(image)):
        right, down = warped[4 * x + 1] * inside[x], warped[4 * x + 2] * inside[x]
        squared = right * right + down * down
        ix[x], iy[x] = right, down
        inv[x] = ONE / squared if squared > np.float32(1e-7) else ZERO
        rho0[x] = warped[4 * x] - right * u1[x] - down * u2[x] - image[x]


@kernel
def warp(
    image: Array, second: Array, u: Array, data: Array, starts: Indices, weights: Array, inside: Array, warped: Array
) -> None:
    """Linearize the data term at the flow u: gradient of the warped frame, 1 / its square, residual at zero flow.

    image: the first frame; second: the second frame with its gradients (see `differentiate`), sampled by cubic
    convolution. There is no data term where the flow points outside the frame.
    """
    height, width = image.shape
    first, last = LANES, LANES + width
    second = second.reshape(second.size)
    for y in range(height):
        u1, u2 = u[0, y + 1, first:last], u[1, y + 1, first:last]
        _taps_row(u1, u2, y, height, width, starts, weights, inside)
        for x in range(width):
            _sum_taps(second, np.int64(starts[x]), 4 * (width + 3), weights, x, warped)
        _data_row(
            image[y],
            warped,
            inside,
            u1,
            u2,
            data[0, y, first:last],
            data[1, y, first:last],
            data[2, y, first:last],
            data[3, y, first:last],
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
