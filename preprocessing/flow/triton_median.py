"""Median filter of the flow in Triton kernels, 3 x 3 or 5 x 5 pixels, with borders repeated.

source: pointer to a float32 plane height x width; y, x: the tile's pixels. numba_median explains the method.
"""

import triton
import triton.language as tl


@triton.jit
def _sort3(a, b, c):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    return a, b, c


@triton.jit
def _sort5(a, b, c, d, e):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    d, e = tl.minimum(d, e), tl.maximum(d, e)
    c, e = tl.minimum(c, e), tl.maximum(c, e)
    c, d = tl.minimum(c, d), tl.maximum(c, d)
    b, e = tl.minimum(b, e), tl.maximum(b, e)
    a, d = tl.minimum(a, d), tl.maximum(a, d)
    a, c = tl.minimum(a, c), tl.maximum(a, c)
    b, d = tl.minimum(b, d), tl.maximum(b, d)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    return a, b, c, d, e


@triton.jit
def _column3(source, y0, y1, y2, x):
    return _sort3(tl.load(source + y0 + x), tl.load(source + y1 + x), tl.load(source + y2 + x))


@triton.jit
def _column5(source, y0, y1, y2, y3, y4, x):
    first, second, third = tl.load(source + y0 + x), tl.load(source + y1 + x), tl.load(source + y2 + x)
    return _sort5(first, second, third, tl.load(source + y3 + x), tl.load(source + y4 + x))


@triton.jit
def median3(source, y, x, height, width):
    """Return the medians of 3 x 3 pixels."""
    y0, y1 = tl.maximum(y - 1, 0) * width, y * width
    y2 = tl.minimum(y + 1, height - 1) * width
    a = _column3(source, y0, y1, y2, tl.maximum(x - 1, 0))
    b = _column3(source, y0, y1, y2, x)
    c = _column3(source, y0, y1, y2, tl.minimum(x + 1, width - 1))
    low = tl.maximum(tl.maximum(a[0], b[0]), c[0])
    high = tl.minimum(tl.minimum(a[2], b[2]), c[2])
    return _sort3(low, _sort3(a[1], b[1], c[1])[1], high)[1]


@triton.jit
def median5(source, y, x, height, width):
    """Return the medians of 5 x 5 pixels."""
    y0, y1, y2 = tl.maximum(y - 2, 0) * width, tl.maximum(y - 1, 0) * width, y * width
    y3, y4 = tl.minimum(y + 1, height - 1) * width, tl.minimum(y + 2, height - 1) * width
    a = _column5(source, y0, y1, y2, y3, y4, tl.maximum(x - 2, 0))
    b = _column5(source, y0, y1, y2, y3, y4, tl.maximum(x - 1, 0))
    c = _column5(source, y0, y1, y2, y3, y4, x)
    d = _column5(source, y0, y1, y2, y3, y4, tl.minimum(x + 1, width - 1))
    e = _column5(source, y0, y1, y2, y3, y4, tl.minimum(x + 2, width - 1))
    row0 = _sort5(a[0], b[0], c[0], d[0], e[0])
    row1 = _sort5(a[1], b[1], c[1], d[1], e[1])
    row2 = _sort5(a[2], b[2], c[2], d[2], e[2])
    row3 = _sort5(a[3], b[3], c[3], d[3], e[3])
    row4 = _sort5(a[4], b[4], c[4], d[4], e[4])
    low = tl.maximum(tl.maximum(row0[3], row1[2]), tl.maximum(row2[1], row3[0]))
    high = tl.minimum(tl.minimum(row1[4], row2[3]), tl.minimum(row3[2], row4[1]))
    mid = _sort5(row0[4], row1[3], row2[2], row3[1], row4[0])
    lower, upper = tl.minimum(low, high), tl.maximum(low, high)
    return tl.minimum(tl.minimum(mid[3], tl.maximum(mid[2], lower)), tl.maximum(mid[1], upper))
