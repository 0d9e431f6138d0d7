"""Triton kernels of the TV-L1 solver for GPUs: iterations, warping with the median filter, and the schedule of a pair.

Every pair of frames follows a schedule of its own, a row of `plans` on the GPU: what it does in the next step, and
which of its two buffers hold the current flow and dual variables. A step is three launches for all pairs: `prepare`,
`iterate` and `advance`. The blocks of a pair that has nothing to do in a launch return at once.

`iterate` runs several iterations on a tile of pixels in registers. Each iteration makes one more pixel at the tile's
edges invalid, so tiles overlap and only the valid pixels are written, to the buffers that are not being read. A pair
that converges in the middle of a step repeats the step with fewer iterations.

Sums of the change of the flow are integers, exact in any order of addition, and the arithmetic of a pixel does not
depend on its tile: the flow of a pair does not depend on the other pairs, the tiles, or the order of the blocks.
"""

import triton
import triton.language as tl

from lgd.preprocessing.flow.triton_median import median3, median5

# Columns of `plans`, int32 pairs x FIELDS.
FIELDS = tl.constexpr(8)
NEXT = tl.constexpr(0)  # what the pair does in the next step: one of the four values below
COUNT = tl.constexpr(1)  # iterations in the next step
FLOW_SIDE = tl.constexpr(2)  # the buffer that holds the current flow, 0 or 1
DUAL_SIDE = tl.constexpr(3)  # the buffer that holds the current dual variables, 0 or 1
WARPS = tl.constexpr(4)  # completed warps of this scale
SMOOTHED = tl.constexpr(5)  # completed outer iterations of this warp
INNER = tl.constexpr(6)  # completed iterations since the last median filter
ITERATIONS = tl.constexpr(7)  # completed iterations of this scale

DONE = tl.constexpr(0)
WARP = tl.constexpr(1)  # linearize, filter and iterate
SMOOTH = tl.constexpr(2)  # filter and iterate
ITERATE = tl.constexpr(3)

MAX_COUNT = tl.constexpr(8)  # iterations in a step at most: columns of the sums
UNITS = tl.constexpr(2.0**30)  # of the sums, in a squared pixel of change
MAX_CHANGE = tl.constexpr(256.0)  # squared pixels of change per pixel and iteration; keeps the sums below 2^63
CUBIC = tl.constexpr(-0.75)  # slope parameter of the cubic convolution kernel (Keys 1981), as in OpenCV

# Without this, each kernel would be compiled again for sizes that are multiples of 16.
_SIZES = ["pairs", "height", "width", "tiles_x", "reach", "inner", "outer", "warps"]


@triton.jit
def _left(x, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Return for each pixel of a tile the value of its left neighbor; of itself in the first column."""
    index = tl.maximum(tl.arange(0, WIDTH) - 1, 0)
    return tl.gather(x, tl.broadcast_to(index[None, :], [HEIGHT, WIDTH]), 1)


@triton.jit
def _right(x, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    index = tl.minimum(tl.arange(0, WIDTH) + 1, WIDTH - 1)
    return tl.gather(x, tl.broadcast_to(index[None, :], [HEIGHT, WIDTH]), 1)


@triton.jit
def _above(x, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    index = tl.maximum(tl.arange(0, HEIGHT) - 1, 0)
    return tl.gather(x, tl.broadcast_to(index[:, None], [HEIGHT, WIDTH]), 0)


@triton.jit
def _below(x, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    index = tl.minimum(tl.arange(0, HEIGHT) + 1, HEIGHT - 1)
    return tl.gather(x, tl.broadcast_to(index[:, None], [HEIGHT, WIDTH]), 0)


@triton.jit
def _shrink(right, down, step):
    """Return 1 / (1 + step * the length of the gradient), by reciprocal square roots.

    A square root and a division take three times as many instructions on a GPU, which treat numbers near 0 specially.
    """
    squared = right * right + down * down
    root = tl.rsqrt(1 + step * (squared * tl.rsqrt(tl.maximum(squared, 1e-30))))
    return root * root


@triton.jit(do_not_specialize=_SIZES)
def iterate(
    u, p, data, sums, plans, pairs, height, width, tiles_x, reach,
    lambda_theta, theta, step, MEDIAN: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Run the next iterations of each pair. Grid: tiles x pairs.

    u: float32 2 x pairs x 2 x height x width; p: 2 x pairs x 4 x height x width; data: pairs x 3 x height x width, the
    gradient in x and y and the residual at zero flow; sums: int64 pairs x MAX_COUNT, the change of the flow in each
    iteration is added. reach: iterations in a step at most, the pixels by which the tiles overlap on each side.
    """
    pair = tl.program_id(1)
    plan = plans + pair * FIELDS
    what = tl.load(plan + NEXT)
    if what == DONE:
        return
    count = tl.load(plan + COUNT)
    flow_side = tl.load(plan + FLOW_SIDE)
    if MEDIAN > 1:  # `prepare` has written the filtered flow to the other buffer
        flow_side = tl.where(what == ITERATE, flow_side, 1 - flow_side)
    dual_side = tl.load(plan + DUAL_SIDE)

    top = tl.program_id(0) // tiles_x * (HEIGHT - 2 * reach)
    left = tl.program_id(0) % tiles_x * (WIDTH - 2 * reach)
    y = top + tl.arange(0, HEIGHT)[:, None]
    x = left + tl.arange(0, WIDTH)[None, :]
    inside = (y < height) & (x < width)
    # At the edges of the picture a tile is valid up to its own edge.
    valid = (y >= tl.where(top > 0, top + reach, 0)) & (x >= tl.where(left > 0, left + reach, 0))
    valid = valid & (y < tl.where(top + HEIGHT >= height, height, top + HEIGHT - reach))
    valid = valid & (x < tl.where(left + WIDTH >= width, width, left + WIDTH - reach))

    plane = height * width
    at = y * width + x
    flow_in = u + (flow_side * pairs + pair).to(tl.int64) * 2 * plane + at
    dual_in = p + (dual_side * pairs + pair).to(tl.int64) * 4 * plane + at
    given = data + pair.to(tl.int64) * 3 * plane + at
    u1, u2 = tl.load(flow_in, inside, 0.0), tl.load(flow_in + plane, inside, 0.0)
    p11, p12 = tl.load(dual_in, inside, 0.0), tl.load(dual_in + plane, inside, 0.0)
    p21, p22 = tl.load(dual_in + 2 * plane, inside, 0.0), tl.load(dual_in + 3 * plane, inside, 0.0)
    ix, iy = tl.load(given, inside, 0.0), tl.load(given + plane, inside, 0.0)
    rho0 = tl.load(given + 2 * plane, inside, 0.0)
    squared = ix * ix + iy * iy
    inverse = tl.where(squared > 1e-7, 1 / squared, 0.0)

    # Factors: no dual variable before the first row and column, no gradient across the last.
    after_first_x, after_first_y = (x > 0).to(tl.float32), (y > 0).to(tl.float32)
    before_last_x, before_last_y = (x < width - 1).to(tl.float32), (y < height - 1).to(tl.float32)
    for k in range(count):
        # The thresholding step of Zach et al. 2007 (Proposition 3), written as one clamp.
        d = -(rho0 + ix * u1 + iy * u2) * inverse
        d = tl.minimum(tl.maximum(d, -lambda_theta), lambda_theta)
        divergence1 = p11 - after_first_x * _left(p11, HEIGHT, WIDTH) + p12 - after_first_y * _above(p12, HEIGHT, WIDTH)
        divergence2 = p21 - after_first_x * _left(p21, HEIGHT, WIDTH) + p22 - after_first_y * _above(p22, HEIGHT, WIDTH)
        new1 = u1 + d * ix + theta * divergence1
        new2 = u2 + d * iy + theta * divergence2
        change = (new1 - u1) * (new1 - u1) + (new2 - u2) * (new2 - u2)
        change = tl.where(valid, tl.minimum(change, MAX_CHANGE) * UNITS, 0.0).to(tl.int64)
        tl.atomic_add(sums + pair * MAX_COUNT + k, tl.sum(change), sem="relaxed")
        u1, u2 = new1, new2

        right1 = (_right(u1, HEIGHT, WIDTH) - u1) * before_last_x
        right2 = (_right(u2, HEIGHT, WIDTH) - u2) * before_last_x
        down1 = (_below(u1, HEIGHT, WIDTH) - u1) * before_last_y
        down2 = (_below(u2, HEIGHT, WIDTH) - u2) * before_last_y
        shrink1, shrink2 = _shrink(right1, down1, step), _shrink(right2, down2, step)
        p11, p12 = (p11 + step * right1) * shrink1, (p12 + step * down1) * shrink1
        p21, p22 = (p21 + step * right2) * shrink2, (p22 + step * down2) * shrink2

    flow_out = u + ((1 - flow_side) * pairs + pair).to(tl.int64) * 2 * plane + at
    dual_out = p + ((1 - dual_side) * pairs + pair).to(tl.int64) * 4 * plane + at
    tl.store(flow_out, u1, valid)
    tl.store(flow_out + plane, u2, valid)
    tl.store(dual_out, p11, valid)
    tl.store(dual_out + plane, p12, valid)
    tl.store(dual_out + 2 * plane, p21, valid)
    tl.store(dual_out + 3 * plane, p22, valid)


@triton.jit
def _cubic_weights(f):
    """Return the weights of the four taps around a position, a fraction f after the second."""
    g = 1 - f
    before, after = CUBIC * f * g * g, CUBIC * g * f * f
    center = ((CUBIC + 2) * f - (CUBIC + 3)) * f * f + 1
    return before, center, 1 - before - center - after, after


@triton.jit
def _row_of_taps(row, x0, x1, x2, x3, weights):
    """Return the weighted sum of four pixels of a row."""
    total = weights[0] * tl.load(row + x0) + weights[1] * tl.load(row + x1)
    return total + weights[2] * tl.load(row + x2) + weights[3] * tl.load(row + x3)


@triton.jit
def _linearize(image, second, flow, data, y, x, inside, height, width):
    """Write the gradient of the warped second frame, 0 where the flow leaves the frame, and the residual at zero flow.

    image: the first frame; second: 3 x height x width, the second frame and its gradients, which are sampled by cubic
    convolution.
    """
    plane = height * width
    at = y * width + x
    u1, u2 = tl.load(flow + at, inside, 0.0), tl.load(flow + plane + at, inside, 0.0)
    to_x, to_y = x.to(tl.float32) + u1, y.to(tl.float32) + u2
    # Written so that NaN gives pixel 0 and not an address outside the array.
    at_x, at_y = tl.where(to_x > 0, to_x, 0.0), tl.where(to_y > 0, to_y, 0.0)
    last_x, last_y = (width - 1).to(tl.float32), (height - 1).to(tl.float32)
    at_x, at_y = tl.where(at_x < last_x, at_x, last_x), tl.where(at_y < last_y, at_y, last_y)
    in_frame = (at_x == to_x) & (at_y == to_y)
    column, row = at_x.to(tl.int32), at_y.to(tl.int32)
    in_x, in_y = _cubic_weights(at_x - column.to(tl.float32)), _cubic_weights(at_y - row.to(tl.float32))
    x0, x2 = tl.maximum(column - 1, 0), tl.minimum(column + 1, width - 1)
    x3 = tl.minimum(column + 2, width - 1)
    row0, row1 = tl.maximum(row - 1, 0) * width, row * width
    row2, row3 = tl.minimum(row + 1, height - 1) * width, tl.minimum(row + 2, height - 1) * width
    gray = tl.zeros_like(u1)
    right = tl.zeros_like(u1)
    down = tl.zeros_like(u1)
    for k in tl.static_range(3):
        source = second + k * plane
        sampled = in_y[0] * _row_of_taps(source + row0, x0, column, x2, x3, in_x)
        sampled += in_y[1] * _row_of_taps(source + row1, x0, column, x2, x3, in_x)
        sampled += in_y[2] * _row_of_taps(source + row2, x0, column, x2, x3, in_x)
        sampled += in_y[3] * _row_of_taps(source + row3, x0, column, x2, x3, in_x)
        if k == 0:
            gray = sampled
        elif k == 1:
            right = tl.where(in_frame, sampled, 0.0)
        else:
            down = tl.where(in_frame, sampled, 0.0)
    tl.store(data + at, right, inside)
    tl.store(data + plane + at, down, inside)
    residual = gray - right * u1 - down * u2 - tl.load(image + at, inside, 0.0)
    tl.store(data + 2 * plane + at, residual, inside)


@triton.jit(do_not_specialize=_SIZES)
def prepare(
    u, data, images, seconds, firsts, plans, pairs, height, width,
    tiles_x, MEDIAN: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Linearize the data term of pairs that begin a warp; filter the flow of pairs before their iterations.

    Grid: tiles x pairs. u, data: see `iterate`; the filtered flow is written to the other buffer. images: float32
    frames x height x width; seconds: frames x 3 x height x width, the frames with their gradients; firsts: int32 pairs,
    the first frame of each pair.
    """
    pair = tl.program_id(1)
    plan = plans + pair * FIELDS
    what = tl.load(plan + NEXT)
    if (what == DONE) | (what == ITERATE):
        return
    y = tl.program_id(0) // tiles_x * HEIGHT + tl.arange(0, HEIGHT)[:, None]
    x = tl.program_id(0) % tiles_x * WIDTH + tl.arange(0, WIDTH)[None, :]
    inside = (y < height) & (x < width)
    # Pixels outside the picture compute what the last ones do.
    y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)
    plane = height * width
    side = tl.load(plan + FLOW_SIDE)
    flow = u + (side * pairs + pair).to(tl.int64) * 2 * plane
    if what == WARP:
        first = tl.load(firsts + pair).to(tl.int64)
        second = seconds + (first + 1) * 3 * plane
        _linearize(
            images + first * plane, second, flow, data + pair.to(tl.int64) * 3 * plane, y, x, inside, height, width
        )
    if MEDIAN > 1:
        filtered = u + ((1 - side) * pairs + pair).to(tl.int64) * 2 * plane + y * width + x
        for k in tl.static_range(2):
            if MEDIAN == 3:
                tl.store(filtered + k * plane, median3(flow + k * plane, y, x, height, width), inside)
            else:
                tl.store(filtered + k * plane, median5(flow + k * plane, y, x, height, width), inside)


@triton.jit(do_not_specialize=_SIZES)
def advance(
    plans, sums, limit, pairs, reach, inner, outer, warps,
    MEDIAN: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Decide from the sums of a step what each pair does next, and set the sums to zero. Grid: pairs / PAIRS.

    limit: int64, one value: a warp ends with the first iteration that changes the flow by at most this. inner, outer,
    warps: maximum numbers of iterations per median filter, of median filters per warp, and of warps.
    """
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    exists = pair < pairs
    plan = plans + pair * FIELDS
    what = tl.load(plan + NEXT, exists, DONE)
    exists = exists & (what != DONE)
    count = tl.load(plan + COUNT, exists, 1)
    flow_side = tl.load(plan + FLOW_SIDE, exists, 0)
    dual_side = tl.load(plan + DUAL_SIDE, exists, 0)
    warp = tl.load(plan + WARPS, exists, 0)
    smoothed = tl.load(plan + SMOOTHED, exists, 0)
    done = tl.load(plan + INNER, exists, 0)
    most = tl.load(limit)

    # The first iteration that changed the flow by little; `count` if none did.
    last = count
    for k in tl.static_range(MAX_COUNT):
        change = tl.load(sums + pair * MAX_COUNT + k, exists, 0)
        last = tl.where((k < last) & (change <= most), k, last)
        tl.store(sums + pair * MAX_COUNT + k, tl.zeros_like(change), exists)
    converged = last < count
    again = last + 1 < count  # the step went beyond it
    if MEDIAN > 1:
        flow_side = tl.where(what == ITERATE, flow_side, 1 - flow_side)
    flow_side = tl.where(again, flow_side, 1 - flow_side)
    dual_side = tl.where(again, dual_side, 1 - dual_side)
    done = tl.where(again, done, done + count)

    end_of_inner = (done >= inner) & (again == 0)
    smoothed = tl.where(end_of_inner, smoothed + 1, smoothed)
    end_of_warp = (again == 0) & (converged | (smoothed >= outer))
    total = tl.load(plan + ITERATIONS, exists, 0) + tl.where(again, 0, count)
    warp = tl.where(end_of_warp, warp + 1, warp)
    smoothed = tl.where(end_of_warp, 0, smoothed)
    done = tl.where(end_of_warp | end_of_inner, 0, done)
    following = tl.where(end_of_inner, SMOOTH if MEDIAN > 1 else ITERATE, ITERATE)
    following = tl.where(end_of_warp, tl.where(warp >= warps, DONE, WARP), following)

    tl.store(plan + NEXT, following, exists)
    tl.store(plan + COUNT, tl.where(again, last + 1, tl.minimum(reach, inner - done)), exists)
    tl.store(plan + FLOW_SIDE, flow_side, exists)
    tl.store(plan + DUAL_SIDE, dual_side, exists)
    tl.store(plan + WARPS, warp, exists)
    tl.store(plan + SMOOTHED, smoothed, exists)
    tl.store(plan + INNER, done, exists)
    tl.store(plan + ITERATIONS, total, exists)
