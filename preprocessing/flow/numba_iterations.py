"""Primal-dual iterations of TV-L1, compiled: several of them move over the frame at once.

While the data is in the cache, an iteration takes little longer than the division and the two square roots per pixel,
which one unit of the core computes. Larger frames do not fit the cache, so the next iteration starts at the first row
as soon as that row is done, and up to `Layout.in_flight` of them follow each other over the frame, a few rows apart.
Whether an iteration is the last is known only when it has seen all rows: the next one starts only when the changes of
the rows so far already exceed the limit. So the result is exactly that of one iteration after the other.

The ten variables of a pixel are planes of one array, see numba_layout.

numba compiles no keyword-only parameters, so all parameters are positional.
"""

import numpy as np

from lgd.preprocessing.flow.numba_kernels import ONE, ZERO, inlined, kernel
from lgd.preprocessing.flow.numba_layout import IX, IY, MINUS_INV, P11, P12, P21, P22, RHO0, Layout
from lgd.preprocessing.flow.numba_vectors import (
    LANES,
    Array,
    Vector,
    absolute,
    add_lanes,
    load,
    maximum,
    minimum,
    splat,
    sqrt,
    store,
)

CERTAIN = np.float32(1.01)  # far above the rounding errors of sums over a row in different orders


@inlined
def _primal(
    fields: Array, change: Array, at: int, above: int, at_change: int, plane: int, lambda_theta: np.float32,
    theta: np.float32,
) -> tuple[Vector, Vector]:  # fmt: skip
    """Primal step on LANES pixels; returns the new flow.

    at, above, at_change: indices of the pixels, of those above (both in the first plane), and of their changes.
    """
    x1, x2 = load(fields, at), load(fields, at + plane)
    ix, iy = load(fields, at + IX * plane), load(fields, at + IY * plane)
    # The thresholding step of Zach et al. 2007 (Proposition 3), written as one clamp.
    d = (load(fields, at + RHO0 * plane) + ix * x1 + iy * x2) * load(fields, at + MINUS_INV * plane)
    d = minimum(maximum(d, splat(-lambda_theta)), splat(lambda_theta))
    p11, p12 = at + P11 * plane, at + P12 * plane
    p21, p22 = at + P21 * plane, at + P22 * plane
    divergence1 = load(fields, p11) - load(fields, p11 - 1) + load(fields, p12) - load(fields, above + P12 * plane)
    divergence2 = load(fields, p21) - load(fields, p21 - 1) + load(fields, p22) - load(fields, above + P22 * plane)
    new1 = x1 + d * ix + splat(theta) * divergence1
    new2 = x2 + d * iy + splat(theta) * divergence2
    store(fields, at, new1)
    store(fields, at + plane, new2)
    change1, change2 = new1 - x1, new2 - x2
    store(change, at_change, load(change, at_change) + (change1 * change1 + change2 * change2))
    return new1, new2


@inlined
def _gradients(fields: Array, at: int, plane: int, below: tuple[Vector, Vector]) -> tuple[Vector, ...]:
    """Forward differences of u1 in x and y, and of u2, at LANES pixels; squared lengths of both gradients.

    below: the flow of the row below."""
    u1, u2 = load(fields, at), load(fields, at + plane)
    right1, down1 = load(fields, at + 1) - u1, below[0] - u1
    right2, down2 = load(fields, at + plane + 1) - u2, below[1] - u2
    return right1, down1, right2, down2, right1 * right1 + down1 * down1, right2 * right2 + down2 * down2


@inlined
def _norms(gradients: tuple[Vector, ...], step: np.float32) -> tuple[Vector, ...]:
    """Replace the squared lengths by the divisors of the dual step."""
    right1, down1, right2, down2, squared1, squared2 = gradients
    one = splat(ONE)
    return right1, down1, right2, down2, one + splat(step) * sqrt(squared1), one + splat(step) * sqrt(squared2)


@inlined
def _dual(fields: Array, at: int, plane: int, step: np.float32, norms: tuple[Vector, ...]) -> None:
    """Dual step on LANES pixels."""
    right1, down1, right2, down2, norm1, norm2 = norms
    both = splat(ONE) / (norm1 * norm2)  # one division instead of two
    factor1, factor2 = both * norm2, both * norm1
    p11, p12 = at + P11 * plane, at + P12 * plane
    p21, p22 = at + P21 * plane, at + P22 * plane
    store(fields, p11, (load(fields, p11) + splat(step) * right1) * factor1)
    store(fields, p12, (load(fields, p12) + splat(step) * down1) * factor1)
    store(fields, p21, (load(fields, p21) + splat(step) * right2) * factor2)
    store(fields, p22, (load(fields, p22) + splat(step) * down2) * factor2)


@inlined
def _next(fields: Array, at: int, c: int, first: int, width: int, pitch: int, plane: int) -> tuple[int, int]:
    """Return the indices of the pixels and changes that follow those at `at` and `c`; first: index of a row's changes.

    At the end of a row, repeat its flow: there is no gradient across the right border.
    """
    if c + LANES < first + width:
        return at + LANES, c + LANES
    start = at - (c - first)
    border = start + width
    fields[border] = fields[border - 1]
    fields[plane + border] = fields[plane + border - 1]
    return start + pitch, first


@kernel
def _first_row(
    fields: Array, change: Array, layout: Layout, first: int, lambda_theta: np.float32, theta: np.float32
) -> None:
    """Primal step on the first row; first: index of its changes."""
    at, c = layout.pitch + LANES, first
    for _ in range(0, layout.width, LANES):
        _primal(fields, change, at, at - layout.pitch, c, layout.plane, lambda_theta, theta)
        at, c = _next(fields, at, c, first, layout.width, layout.pitch, layout.plane)


@kernel
def _rows(
    fields: Array, change: Array, layout: Layout, y: int, count: int, first: int, lambda_theta: np.float32,
    theta: np.float32, step: np.float32,
) -> None:  # fmt: skip
    """Primal step on `count` rows from row y > 0, dual step on the row above each, which depends on it.

    first: index of a row's changes. The steps on a vector are a long chain of dependent operations, so four vectors are
    in different parts of it at a time: the processor does not look far enough ahead to find that by itself.
    """
    width, pitch, plane = layout.width, layout.pitch, layout.plane
    vectors = (width + LANES - 1) // LANES * count
    at, c = (y + 1) * pitch + LANES, first
    if vectors < 3:
        for _ in range(vectors):
            new = _primal(fields, change, at, at - pitch, c, plane, lambda_theta, theta)
            _dual(fields, at - pitch, plane, step, _norms(_gradients(fields, at - pitch, plane, new), step))
            at, c = _next(fields, at, c, first, width, pitch, plane)
        return
    new = _primal(fields, change, at, at - pitch, c, plane, lambda_theta, theta)
    norms = _norms(_gradients(fields, at - pitch, plane, new), step)
    dual_at = at - pitch
    at, c = _next(fields, at, c, first, width, pitch, plane)
    new = _primal(fields, change, at, at - pitch, c, plane, lambda_theta, theta)
    gradients = _gradients(fields, at - pitch, plane, new)
    norms_at = at - pitch
    at, c = _next(fields, at, c, first, width, pitch, plane)
    new = _primal(fields, change, at, at - pitch, c, plane, lambda_theta, theta)
    gradients_at = at - pitch
    at, c = _next(fields, at, c, first, width, pitch, plane)
    for _ in range(vectors - 3):
        next_new = _primal(fields, change, at, at - pitch, c, plane, lambda_theta, theta)
        next_gradients = _gradients(fields, gradients_at, plane, new)
        next_norms = _norms(gradients, step)
        _dual(fields, dual_at, plane, step, norms)
        new, gradients, norms = next_new, next_gradients, next_norms
        dual_at, norms_at, gradients_at = norms_at, gradients_at, at - pitch
        at, c = _next(fields, at, c, first, width, pitch, plane)
    _dual(fields, dual_at, plane, step, norms)
    _dual(fields, norms_at, plane, step, _norms(gradients, step))
    _dual(fields, gradients_at, plane, step, _norms(_gradients(fields, gradients_at, plane, new), step))


@kernel
def _dual_last_row(fields: Array, at: int, plane: int, vectors: int, step: np.float32) -> None:
    """Dual step on the last row, which has no gradient in y."""
    for u, p in ((at, at + P11 * plane), (at + plane, at + P21 * plane)):
        for x in range(0, vectors * LANES, LANES):
            right = load(fields, u + x + 1) - load(fields, u + x)
            norm = splat(ONE) + splat(step) * absolute(right)
            store(fields, p + x, (load(fields, p + x) + splat(step) * right) / norm)


@kernel
def _exceeds(change: Array, at: int, width: int, limit: np.float32) -> bool:
    """Return whether the sum of changes certainly exceeds the limit, in whatever order it is computed."""
    total = ZERO
    if width >= LANES:
        sums = load(change, at)
        for x in range(LANES, width - LANES + 1, LANES):
            sums = sums + load(change, at + x)
        total = add_lanes(sums)
    for x in range(width // LANES * LANES, width):
        total += change[at + x]
    return bool(total > CERTAIN * limit)


@kernel
def iterate(
    fields: Array, layout: Layout, change: Array, limit: np.float32, iterations: int, lambda_theta: np.float32,
    theta: np.float32, step: np.float32,
) -> np.float32:  # fmt: skip
    """Run primal-dual iterations until one changes the flow by at most `limit` (the sum of squares).

    change: scratch space, a row per iteration in flight. iterations: their maximum number. Returns the change of the
    last one.
    """
    height, width, pitch, plane, in_flight, rows = layout
    vectors = (width + LANES - 1) // LANES
    done = np.empty(in_flight, np.intp)  # rows of each iteration in flight; the last row's dual step counts as a row
    oldest = started = 0
    while True:
        newest = (started - 1) % in_flight
        if started == oldest or (
            started - oldest < in_flight
            and started < iterations
            and done[newest] > rows
            and _exceeds(change, newest * pitch + LANES, width, limit)
        ):
            slot = started % in_flight
            done[slot] = 0
            change[slot * pitch : (slot + 1) * pitch] = ZERO
            started += 1
        for iteration in range(oldest, started):
            slot = iteration % in_flight
            y, first = done[slot], slot * pitch + LANES
            count = 1 if y in (0, height) else min(rows, height - y)
            if iteration > oldest and done[(iteration - 1) % in_flight] < min(y + count + 1, height + 1):
                continue
            if y == 0:
                _first_row(fields, change, layout, first, lambda_theta, theta)
            elif y < height:
                _rows(fields, change, layout, y, count, first, lambda_theta, theta, step)
            else:
                _dual_last_row(fields, height * pitch + LANES, plane, vectors, step)
            done[slot] = y + count
        if done[oldest % in_flight] == height + 1:
            total = ZERO
            first = oldest % in_flight * pitch + LANES
            for x in range(first, first + width):
                total += change[x]
            oldest += 1
            if total <= limit or oldest == iterations:
                return total
