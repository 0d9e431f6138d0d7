"""Median filter of the flow, 3 x 3 or 5 x 5: compiled sorting networks that process a vector of pixels at a time."""

import numpy as np

from lgd.preprocessing.flow.numba_kernels import LANES, Array, kernel, row_kernel

Value = np.float32


@row_kernel
def _sort3(a: Value, b: Value, c: Value) -> tuple[Value, Value, Value]:
    a, b = min(a, b), max(a, b)
    b, c = min(b, c), max(b, c)
    a, b = min(a, b), max(a, b)
    return a, b, c


@row_kernel
def _sort5(a: Value, b: Value, c: Value, d: Value, e: Value) -> tuple[Value, Value, Value, Value, Value]:
    a, b = min(a, b), max(a, b)
    d, e = min(d, e), max(d, e)
    c, e = min(c, e), max(c, e)
    c, d = min(c, d), max(c, d)
    b, e = min(b, e), max(b, e)
    a, d = min(a, d), max(a, d)
    a, c = min(a, c), max(a, c)
    b, d = min(b, d), max(b, d)
    b, c = min(b, c), max(b, c)
    return a, b, c, d, e


@row_kernel
def _sort_columns3(r0: Array, r1: Array, r2: Array, s0: Array, s1: Array, s2: Array) -> None:
    """Sort each column of the rows r into the rows s."""
    for x in range(len(r0)):
        s0[x], s1[x], s2[x] = _sort3(r0[x], r1[x], r2[x])


@row_kernel
def _sort_columns5(
    r0: Array, r1: Array, r2: Array, r3: Array, r4: Array, s0: Array, s1: Array, s2: Array, s3: Array, s4: Array
) -> None:
    """Sort each column of the rows r into the rows s."""
    for x in range(len(r0)):
        s0[x], s1[x], s2[x], s3[x], s4[x] = _sort5(r0[x], r1[x], r2[x], r3[x], r4[x])


@row_kernel
def _median3_row(s0: Array, s1: Array, s2: Array, out: Array) -> None:
    """Median of 3 x 3 pixels from sorted columns: the median of the largest low, median mid and smallest high value."""
    for x in range(len(out)):
        low = max(max(s0[x], s0[x + 1]), s0[x + 2])
        mid = _sort3(s1[x], s1[x + 1], s1[x + 2])[1]
        high = min(min(s2[x], s2[x + 1]), s2[x + 2])
        out[x] = _sort3(low, mid, high)[1]


@row_kernel
def _median5_row(s0: Array, s1: Array, s2: Array, s3: Array, s4: Array, out: Array) -> None:
    """Median of 5 x 5 pixels from sorted columns.

    After the rows are sorted too, entry (i, j) has at least (i + 1)(j + 1) - 1 entries below it and (5 - i)(5 - j) - 1
    above it. That leaves thirteen candidates, the antidiagonals i + j = 3, 4 and 5. Of the first antidiagonal only the
    largest and of the last only the smallest entry can be the median, which is the median of these seven.
    """
    for x in range(len(out)):
        row0 = _sort5(s0[x], s0[x + 1], s0[x + 2], s0[x + 3], s0[x + 4])
        row1 = _sort5(s1[x], s1[x + 1], s1[x + 2], s1[x + 3], s1[x + 4])
        row2 = _sort5(s2[x], s2[x + 1], s2[x + 2], s2[x + 3], s2[x + 4])
        row3 = _sort5(s3[x], s3[x + 1], s3[x + 2], s3[x + 3], s3[x + 4])
        row4 = _sort5(s4[x], s4[x + 1], s4[x + 2], s4[x + 3], s4[x + 4])
        low = max(max(row0[3], row1[2]), max(row2[1], row3[0]))
        high = min(min(row1[4], row2[3]), min(row3[2], row4[1]))
        mid = _sort5(row0[4], row1[3], row2[2], row3[1], row4[0])
        # The fourth of seven values: five sorted ones merged with two sorted ones.
        low, high = min(low, high), max(low, high)
        out[x] = min(min(mid[3], max(mid[2], low)), max(mid[1], high))


@row_kernel
def _copy_row(row: Array, out: Array) -> None:
    for x in range(len(out)):  # an array assignment takes four times as long to compile
        out[x] = row[x]


@kernel
def median(u: Array, width: int, size: int, columns: Array) -> None:
    """Apply a median filter of size x size pixels (3 or 5) to both components of the flow, in place; repeat borders.

    columns: size + 2 rows of scratch space. A column is sorted once for all windows that contain it.
    """
    height = u.shape[1] - 1
    first, last = LANES, LANES + width
    end = first + (width + LANES - 1) // LANES * LANES
    reach = size // 2
    start, stop = first - reach, end + reach
    old = columns[size:]
    for k in range(2):
        field = u[k]
        for y in range(1, height + 1):
            field[y, start:first] = field[y, first]
            field[y, last : last + reach] = field[y, last - 1]
        # The original values of the last rows that were overwritten.
        for i in range(reach):
            _copy_row(field[1], old[i])
        for y in range(1, height + 1):
            if size == 3:
                _sort_columns3(
                    old[0, start:stop], field[y, start:stop], field[min(y + 1, height), start:stop],
                    columns[0, start:stop], columns[1, start:stop], columns[2, start:stop],
                )  # fmt: skip
            else:
                _sort_columns5(
                    old[0, start:stop], old[1, start:stop],
                    field[y, start:stop], field[min(y + 1, height), start:stop], field[min(y + 2, height), start:stop],
                    columns[0, start:stop], columns[1, start:stop], columns[2, start:stop],
                    columns[3, start:stop], columns[4, start:stop],
                )  # fmt: skip
                _copy_row(old[1], old[0])
            _copy_row(field[y], old[reach - 1])
            if size == 3:
                _median3_row(
                    columns[0, start:stop], columns[1, start:stop], columns[2, start:stop], field[y, first:end]
                )
            else:
                _median5_row(
                    columns[0, start:stop], columns[1, start:stop], columns[2, start:stop],
                    columns[3, start:stop], columns[4, start:stop], field[y, first:end],
                )  # fmt: skip
