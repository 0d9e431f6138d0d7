"""Median filter of the flow, 3 x 3 or 5 x 5: compiled sorting networks that process a vector of pixels at a time."""

from collections.abc import Callable

from lgd.preprocessing.flow.numba_kernels import inlined, kernel
from lgd.preprocessing.flow.numba_layout import Layout
from lgd.preprocessing.flow.numba_networks import load_rows, merge, middle, part, sort, store_rows
from lgd.preprocessing.flow.numba_vectors import LANES, Array, Vectors, store


def scratch_rows(size: int) -> int:
    """Return the number of rows of scratch space of a median filter of size x size pixels."""
    return (size // 2 + 1) * 3 * size


def _median_of(size: int) -> Callable[[Array, int, Layout, Array], None]:
    """Return the compiled median filter of size x size pixels (3 or 5).

    Two rows of results, y and y + 1, are computed together. Their windows have all rows but one in common, which come
    in pairs (here `reach` pairs). Each row of a window is sorted, each pair of rows is merged; both serve all windows
    that contain them. The median of the window's n^2 values is one of the n + 1 middle values of the common rows, or
    one of the n values of the row that is not common: it is the middle one of these 2 n + 1.
    """
    reach = size // 2
    pairs, slot_rows = reach + 1, 3 * size  # in the scratch space: each pair's merged rows, then its second row
    of_pair = 2 * size  # values of a pair of rows
    first_middle, of_middle = (size * size + 1) // 2 - size - 1, size + 1  # of the values of the common rows

    @inlined
    def sorted_window(field: Array, at: int) -> Vectors:
        return sort(load_rows(field, at - reach, 1, size))

    if reach == 1:

        @inlined
        def middle_of_common(scratch: Array, at: int, other: int, pitch: int) -> Vectors:
            return part(load_rows(scratch, at, pitch, of_pair), first_middle, of_middle)

    else:

        @inlined
        def middle_of_common(scratch: Array, at: int, other: int, pitch: int) -> Vectors:
            values = merge(load_rows(scratch, at, pitch, of_pair), load_rows(scratch, other, pitch, of_pair))
            return part(values, first_middle, of_middle)

    @kernel
    def filter_plane(fields: Array, start: int, layout: Layout, scratch: Array) -> None:
        height, width, pitch = layout.height, layout.width, layout.pitch
        end = (width + LANES - 1) // LANES * LANES
        for y in range(height):
            for x in range(reach):  # repeat borders
                fields[start + y * pitch - 1 - x] = fields[start + y * pitch]
                fields[start + y * pitch + width + x] = fields[start + y * pitch + width - 1]
        # The last row stands for those below it: keep its values in the row above the first, which is not used.
        for x in range(-reach, end + reach):
            fields[start - pitch + x] = fields[start + (height - 1) * pitch + x]
        for pair in range(-1, (height + 1) // 2 + reach):
            # The pair's rows, and the first of the two rows of results for which it is the last pair.
            row, y = 2 * pair - reach + 1, 2 * (pair - reach)
            first = start + (max(row, 0) if row < height else -1) * pitch
            second = start + (max(row + 1, 0) if row + 1 < height else -1) * pitch
            # The pair's place in the scratch space is that of the pair above the windows, which is not needed again.
            slot = pair % pairs * slot_rows * pitch
            common = (pair - reach) % pairs * slot_rows * pitch
            other = (pair - reach + 1) % pairs * slot_rows * pitch
            for x in range(0, end, LANES):
                sorted_first, sorted_second = sorted_window(fields, first + x), sorted_window(fields, second + x)
                if y >= 0:
                    candidates = middle_of_common(scratch, common + x, other + x, pitch)
                    above = load_rows(scratch, slot + of_pair * pitch + x, pitch, size)
                    store(fields, start + y * pitch + x, middle(candidates, above))
                    if y + 1 < height:
                        store(fields, start + (y + 1) * pitch + x, middle(candidates, sorted_first))
                store_rows(scratch, slot + x, pitch, merge(sorted_first, sorted_second))
                store_rows(scratch, slot + of_pair * pitch + x, pitch, sorted_second)

    return filter_plane


_median3, _median5 = _median_of(3), _median_of(5)


@kernel
def median(fields: Array, layout: Layout, size: int, scratch: Array) -> None:
    """Apply a median filter of size x size pixels (3 or 5) to both components of the flow, in place; repeat borders.

    scratch: `scratch_rows` rows.
    """
    for component in range(2):
        start = component * layout.plane + layout.pitch + LANES
        if size == 3:
            _median3(fields, start, layout, scratch)
        else:
            _median5(fields, start, layout, scratch)
