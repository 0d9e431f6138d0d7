"""The compiled loops of the TV-L1 solver for the CPU: iterations, warping, resampling.

Arrays that the iterations work on hold a margin of LANES pixels on either side of a row, so that neighbors exist at
the borders and rows start on cache lines, and one row above the first. Results do not depend on the width of the
machine's vectors: operations are never re-associated or contracted (no fastmath), and sums run in a fixed order.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.compiler import Compiler
from numba.extending import intrinsic

LANES = 16  # a row is computed in steps of so many pixels: 64 bytes, a cache line and the widest vector
CUBIC = np.float32(-0.75)  # slope parameter of the cubic convolution kernel (Keys 1981), as in OpenCV

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class _NoAlias(Compiler):
    """Compiles with the promise that an array a function writes overlaps none of its other arguments.

    Without it, loops over a dozen rows are not vectorised.
    """

    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals):
        flags.noalias = True
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)


kernel = njit(nogil=True, error_model="numpy")
row_kernel = njit(nogil=True, error_model="numpy", pipeline_class=_NoAlias, forceinline=True)


@row_kernel
def _primal_dual_row(u1, u2, p11, p12, p21, p22, a1, a2, q11, q12, q21, q22, ix, iy, inv, rho0, moved, lt, theta, step):
    """Primal step on a row, then the dual step on the row above, which needed it.

    u, p: the row's flow and dual variable (p11 and p21 from the pixel on the left of the row's first on); a, q: those
    of the row above. moved: squared change of the flow, added up per column.
    """
    for x in range(len(u1)):
        x1, x2 = u1[x], u2[x]
        # The thresholding step of Zach et al. 2007 (Proposition 3), written as one clamp.
        d = -(rho0[x] + ix[x] * x1 + iy[x] * x2) * inv[x]
        d = min(max(d, -lt), lt)
        old12, old22 = q12[x], q22[x]
        new1 = x1 + d * ix[x] + theta * (p11[x + 1] - p11[x] + p12[x] - old12)
        new2 = x2 + d * iy[x] + theta * (p21[x + 1] - p21[x] + p22[x] - old22)
        u1[x], u2[x] = new1, new2
        moved[x] += (new1 - x1) * (new1 - x1) + (new2 - x2) * (new2 - x2)

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
def _dual_last_row(a1, a2, q11, q21, step):
    for x in range(len(q11)):
        right1, right2 = a1[x + 1] - a1[x], a2[x + 1] - a2[x]
        q11[x] = (q11[x] + step * right1) / (ONE + step * abs(right1))
        q21[x] = (q21[x] + step * right2) / (ONE + step * abs(right2))


@kernel
def iterate(u, p, data, moved, width, limit, iterations, lt, theta, step):
    """Up to so many primal-dual iterations, until one moves the flow by at most limit (the sum of squares).

    Returns what the last one moved.
    """
    height = data.shape[1]
    first, last = LANES, LANES + width
    end = first + (width + LANES - 1) // LANES * LANES
    total = ZERO
    for _ in range(iterations):
        moved[:] = ZERO
        for y in range(1, height + 1):
            above = y - 1
            _primal_dual_row(
                u[0, y, first:end], u[1, y, first:end],
                p[0, y, first - 1 : end], p[1, y, first:end], p[2, y, first - 1 : end], p[3, y, first:end],
                u[0, above, first : end + 1], u[1, above, first : end + 1],
                p[0, above, first:end], p[1, above, first:end], p[2, above, first:end], p[3, above, first:end],
                data[0, above, first:end], data[1, above, first:end], data[2, above, first:end],
                data[3, above, first:end], moved[first:end], lt, theta, step,
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
        p[:, 0] = ZERO  # above the first row
        total = ZERO
        for x in range(first, last):
            total += moved[x]
        if total <= limit:
            break
    return total


@intrinsic
def _sum_taps(typingctx, image, start, pitch, weights, at, out):
    """out[4 at : 4 at + 4] = the 4 x 4 pixels of 4 floats from image[start] on, weighted.

    pitch: floats from row to row. weights[8 at : 8 at + 8]: of the columns, then of the rows. A row of four pixels is
    one vector of 16 floats, which the loop vectoriser cannot find by itself.
    """

    def codegen(context, builder, signature, args):
        def pointer(array, index, count):
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.bitcast(builder.gep(data, [index]), ir.VectorType(ir.FloatType(), count).as_pointer())

        def spread(vector, lanes):
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        def number(value):
            return ir.Constant(ir.IntType(64), value)

        first_weight = builder.mul(args[4], number(8))
        columns = builder.load(pointer(3, first_weight, 4), align=4)
        rows = builder.load(pointer(3, builder.add(first_weight, number(4)), 4), align=4)
        total = None
        for row in range(4):
            begin = builder.add(args[1], builder.mul(args[2], number(row)))
            term = builder.fmul(builder.load(pointer(0, begin, 16), align=4), spread(rows, [row] * 16))
            total = term if total is None else builder.fadd(total, term)
        total = builder.fmul(total, spread(columns, [lane // 4 for lane in range(16)]))
        total = builder.fadd(spread(total, list(range(8))), spread(total, list(range(8, 16))))
        total = builder.fadd(spread(total, list(range(4))), spread(total, list(range(4, 8))))
        builder.store(total, pointer(5, builder.mul(args[4], number(4)), 4), align=4)
        return context.get_dummy_value()

    return types.void(image, types.int64, types.int64, weights, types.int64, out), codegen


@row_kernel
def _taps_row(u1, u2, y, height, width, starts, weights, inside):
    """Where the pixels of row y come from in the other frame, and the weights of the taps there."""
    for x in range(width):
        to_x, to_y = np.float32(x) + u1[x], np.float32(y) + u2[x]
        # In this form a value that is not a number reads pixel 0 and not some other memory.
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
            here = ((CUBIC + np.float32(2)) * f - (CUBIC + np.float32(3))) * f * f + ONE
            weights[8 * x + k] = before
            weights[8 * x + k + 1] = here
            weights[8 * x + k + 2] = ONE - before - here - after
            weights[8 * x + k + 3] = after


@row_kernel
def _data_row(image, warped, inside, u1, u2, ix, iy, inv, rho0):
    for x in range(len(image)):
        right, down = warped[4 * x + 1] * inside[x], warped[4 * x + 2] * inside[x]
        squared = right * right + down * down
        ix[x], iy[x] = right, down
        inv[x] = ONE / squared if squared > np.float32(1e-7) else ZERO
        rho0[x] = warped[4 * x] - right * u1[x] - down * u2[x] - image[x]


@kernel
def warp(image, other, u, data, starts, weights, inside, warped):
    """The data term linearized at the flow u: gradient of the warped frame, 1 / its square, residual at zero flow.

    image: the first frame; other: the second one with its gradients (see differentiate), sampled by cubic
    convolution. Where the flow leaves the frame, there is no data term.
    """
    height, width = image.shape
    first, last = LANES, LANES + width
    other = other.reshape(other.size)
    for y in range(height):
        u1, u2 = u[0, y + 1, first:last], u[1, y + 1, first:last]
        _taps_row(u1, u2, y, height, width, starts, weights, inside)
        for x in range(width):
            _sum_taps(other, np.int64(starts[x]), 4 * (width + 3), weights, x, warped)  # type: ignore[call-arg]
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
def _blend_rows(upper, lower, part, out):
    for x in range(len(out)):
        out[x] = upper[x] + part * (lower[x] - upper[x])


@row_kernel
def _blend_columns(row, left, part, out):
    for x in range(len(out)):
        out[x] = row[left[x]] + part[x] * (row[left[x] + 1] - row[left[x]])


@kernel
def resize(source, target, step_y, step_x, gain):
    """Bilinear resampling, pixel centers at half-integers: target pixel t lies at (t + 1/2) step - 1/2; times gain."""
    rows, columns = source.shape
    height, width = target.shape
    row = np.empty(columns + 1, np.float32)
    left = np.empty(width, np.int32)
    part = np.empty(width, np.float32)
    for x in range(width):
        at = min(max((x + 0.5) * step_x - 0.5, 0.0), columns - 1.0)
        left[x] = int(at)
        part[x] = at - int(at)
    for y in range(height):
        at = min(max((y + 0.5) * step_y - 0.5, 0.0), rows - 1.0)
        upper = int(at)
        _blend_rows(source[upper], source[min(upper + 1, rows - 1)], np.float32(at - upper), row[:columns])
        for x in range(columns):
            row[x] *= gain
        row[columns] = row[columns - 1]
        _blend_columns(row, left, part, target[y])


@kernel
def differentiate(image, out):
    """Frame -> its gray value, central differences in x and y, and 0, interleaved; borders repeat.

    out: (height + 3) x (width + 3) x 4, with one more row and column before and two after, for the cubic taps.
    """
    height, width = image.shape
    for y in range(height + 3):
        here = min(max(y - 1, 0), height - 1)
        up, down = max(here - 1, 0), min(here + 1, height - 1)
        for x in range(width + 3):
            at = min(max(x - 1, 0), width - 1)
            out[y, x, 0] = image[here, at]
            out[y, x, 1] = HALF * (image[here, min(at + 1, width - 1)] - image[here, max(at - 1, 0)])
            out[y, x, 2] = HALF * (image[down, at] - image[up, at])
            out[y, x, 3] = ZERO
