"""Compiled sorting networks."""

import numpy as np

from lgd.preprocessing.flow.numba_kernels import kernel
from lgd.preprocessing.flow.numba_networks import load_rows, merge, middle, part, sort, store_rows
from lgd.preprocessing.flow.numba_vectors import LANES, store


@kernel
def _sorted(values, ordered, merged, middles):
    five, four = sort(load_rows(values, 0, LANES, 5)), sort(load_rows(values, 5 * LANES, LANES, 4))
    store_rows(ordered, 0, LANES, five)
    store_rows(merged, 0, LANES, part(merge(five, four), 2, 4))
    store(middles, 0, middle(five, four))


def test_networks_sort_merge_and_find_the_middle_of_every_lane():
    # A network that sorts all sequences of zeros and ones sorts all sequences (Knuth, TAOCP 3, 5.3.4, theorem Z).
    for first in range(0, 2**9, LANES):
        values = (np.arange(first, first + LANES) >> np.arange(9)[:, None] & 1).astype(np.float32)
        ordered, merged = np.empty((5, LANES), np.float32), np.empty((4, LANES), np.float32)
        middles = np.empty(LANES, np.float32)
        _sorted(values.reshape(-1), ordered.reshape(-1), merged.reshape(-1), middles)
        np.testing.assert_array_equal(ordered, np.sort(values[:5], axis=0))
        np.testing.assert_array_equal(merged, np.sort(values, axis=0)[2:6])
        np.testing.assert_array_equal(middles, np.median(values, axis=0))
