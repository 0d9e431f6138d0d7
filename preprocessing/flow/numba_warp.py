"""Warping of the second frame of TV-L1 by the flow, compiled: the data term of the iterations."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lgd.preprocessing.flow.numba_kernels import ONE, ZERO, Indices, inlined, kernel
from lgd.preprocessing.flow.numba_layout import IX, IY, MINUS_INV, RHO0, Layout
from lgd.preprocessing.flow.numba_vectors import (
    LANES,
    Array,
    Vector,
    address,
    equal,
    lane_numbers,
    load,
    load_interleaved,
    maximum,
    minimum,
    select_lanes,
    splat,
    store,
    store_interleaved,
    truncate,
    where_greater,
)

CUBIC = np.float32(-0.75)  # slope parameter of the cubic convolution kernel (Keys 1981), as in OpenCV
TWO, THREE = np.float32(2), np.float32(3)
MIN_SQUARE = np.float32(1e-7)  # of the gradient of the warped frame: there is no data term below it
TAPS = 4  # rows and columns of the cubic kernel
CHANNELS = 4  # of the second frame, see `differentiate`


def _store_starts(
    typingctx: Any, starts: Any, index: Any, left: Any, top: Any, columns: Any
) -> tuple[Any, Callable[..., Any]]:
    """starts[index : index + LANES] = CHANNELS * (top * columns + left), as integers."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        left, top = builder.fptosi(args[2], integers), builder.fptosi(args[3], integers)
        undefined = ir.Constant(integers, ir.Undefined)
        columns = builder.insert_element(undefined, args[4], ir.Constant(ir.IntType(32), 0))
        columns = select_lanes(builder, columns, undefined, [0] * LANES)
        start = builder.mul(builder.add(builder.mul(top, columns), left), ir.Constant(integers, [CHANNELS] * LANES))
        builder.store(start, address(context, builder, signature.args[0], args[0], args[1], integers), align=4)
        return context.get_dummy_value()

    return types.void(starts, types.intp, left, top, types.int32), codegen


def _sum_taps_of_pixels(
    typingctx: Any, second: Any, starts: Any, at: Any, pitch: Any, columns: Any, rows: Any, out: Any
) -> tuple[Any, Callable[..., Any]]:
    """out[4 at : 4 at + 16] = weighted sums of 4 x 4 taps of 4 channels for the four pixels at, ..., at + 3.

    pitch: floats between the starts of two rows of `second`. columns, rows: weights, four per pixel. A row of four taps
    is one vector of 16 floats.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, four = ir.VectorType(ir.FloatType(), 16), ir.VectorType(ir.FloatType(), 4)
        undefined = ir.Constant(vector, ir.Undefined)

        def constant(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        def pointer(array: int, index: Any, element: Any) -> Any:
            return address(context, builder, signature.args[array], args[array], index, element)

        def pixel(number: int) -> Any:
            x = builder.add(args[2], constant(number))
            data = context.make_array(signature.args[1])(context, builder, args[1]).data
            start = builder.sext(builder.load(builder.gep(data, [x])), ir.IntType(64))
            weights = builder.mul(x, constant(TAPS))
            total = None
            for row in range(TAPS):
                begin = builder.add(start, builder.mul(args[3], constant(row)))
                data = context.make_array(signature.args[5])(context, builder, args[5]).data
                weight = builder.load(builder.gep(data, [builder.add(weights, constant(row))]))
                weight = builder.insert_element(undefined, weight, ir.Constant(ir.IntType(32), 0))
                weight = select_lanes(builder, weight, undefined, [0] * 16)
                term = builder.fmul(builder.load(pointer(0, begin, vector), align=4), weight)
                total = term if total is None else builder.fadd(total, term)
            column = builder.load(pointer(4, weights, four), align=4)
            return builder.fmul(total, select_lanes(builder, column, column, [lane // 4 for lane in range(16)]))

        def add_halves(a: Any, b: Any, group: int) -> Any:
            """Add the second half of each group of lanes to the first, for two vectors."""
            lanes = [lane for lane in range(32) if lane % group < group // 2]
            second_halves = [lane + group // 2 for lane in lanes]
            return builder.fadd(select_lanes(builder, a, b, lanes), select_lanes(builder, a, b, second_halves))

        sums = add_halves(add_halves(pixel(0), pixel(1), 16), add_halves(pixel(2), pixel(3), 16), 8)
        builder.store(sums, pointer(6, builder.mul(args[2], constant(CHANNELS)), vector), align=4)
        return context.get_dummy_value()

    return types.void(second, starts, types.intp, types.intp, columns, rows, out), codegen


# To mypy these are functions of Python.
store_starts = cast("Callable[[Indices, int, Vector, Vector, np.int32], None]", intrinsic(_store_starts))
sum_taps_of_pixels = cast(
    "Callable[[Array, Indices, int, int, Array, Array, Array], None]", intrinsic(_sum_taps_of_pixels)
)


@inlined
def _store_weights(weights: Array, at: int, f: Vector) -> None:
    """Store the weights of the four taps around a position whose fraction is f, interleaved."""
    one, slope = splat(ONE), splat(CUBIC)
    g = one - f
    before, after = slope * f * g * g, slope * g * f * f
    center = (splat(CUBIC + TWO) * f - splat(CUBIC + THREE)) * f * f + one
    store_interleaved(weights, at, before, center, one - before - center - after, after)


@inlined
def _clamp(position: Vector, last: int) -> Vector:
    """Clamp a position to the frame, such that NaN gives pixel 0 and not an address outside the array."""
    return minimum(splat(np.float32(last)), maximum(splat(ZERO), position))


@kernel
def _taps_row(
    fields: Array, at: int, y: int, layout: Layout, starts: Indices, columns: Array, rows: Array, inside: Array
) -> None:
    """For each pixel of row y, compute its position in the second frame and the weights of the taps at that position.

    at: index of the row's flow. inside: 1 where the position lies in the frame, else 0.
    """
    height, width, plane = layout.height, layout.width, layout.plane
    for x in range(0, width, LANES):
        to_x = lane_numbers() + splat(np.float32(x)) + load(fields, at + x)
        to_y = splat(np.float32(y)) + load(fields, at + plane + x)
        at_x, at_y = _clamp(to_x, width - 1), _clamp(to_y, height - 1)
        store(inside, x, equal(at_x, to_x) * equal(at_y, to_y))
        left, top = truncate(at_x), truncate(at_y)
        store_starts(starts, x, left, top, np.int32(width + TAPS - 1))
        _store_weights(columns, TAPS * x, at_x - left)
        _store_weights(rows, TAPS * x, at_y - top)


@kernel
def _data_row(image: Array, warped: Array, inside: Array, fields: Array, at: int, layout: Layout) -> None:
    """Compute the data term of a row from its warped pixels; its gradient is 0 where the flow leaves the frame."""
    plane = layout.plane
    for x in range(0, layout.width, LANES):
        value, right, down, _ = load_interleaved(warped, CHANNELS * x)
        right, down = right * load(inside, x), down * load(inside, x)
        squared = right * right + down * down
        minus_inv = where_greater(squared, splat(MIN_SQUARE), splat(-ONE) / squared, splat(-ZERO))
        residual = value - right * load(fields, at + x) - down * load(fields, at + plane + x) - load(image, x)
        store(fields, at + IX * plane + x, right)
        store(fields, at + IY * plane + x, down)
        store(fields, at + MINUS_INV * plane + x, minus_inv)
        store(fields, at + RHO0 * plane + x, residual)


@kernel
def warp(
    image: Array, second: Array, fields: Array, layout: Layout, starts: Indices, columns: Array, rows: Array,
    inside: Array, warped: Array,
) -> None:  # fmt: skip
    """Linearize the data term at the flow: gradient of the warped frame, -1 / its square, residual at zero flow.

    image: the first frame; second: the second frame with its gradients (see `differentiate`), sampled by cubic
    convolution. There is no data term where the flow points outside the frame. columns to warped: a row of scratch
    space each. They and image are read and written up to the next multiple of LANES pixels.
    """
    height, width, pitch = layout.height, layout.width, layout.pitch
    image, second = image.reshape(image.size), second.reshape(second.size)
    for y in range(height):
        at = (y + 1) * pitch + LANES
        _taps_row(fields, at, y, layout, starts, columns, rows, inside)
        for x in range(0, width, TAPS):
            sum_taps_of_pixels(second, starts, x, CHANNELS * (width + TAPS - 1), columns, rows, warped)
        _data_row(image[y * width :], warped, inside, fields, at, layout)
