"""The compiled median filter."""

import numpy as np
import pytest

from lgd.preprocessing.flow.numba_layout import layout_of
from lgd.preprocessing.flow.numba_median import median, scratch_rows
from lgd.preprocessing.flow.numba_vectors import LANES
from tests.preprocessing.flow.textures import median_of_windows


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 17), (4, 16), (5, 1), (9, 31), (23, 70), (24, 32)])
def test_median_filters_are_medians(size, shape):
    flow = np.random.default_rng(1).integers(0, 30, (2, *shape)).astype(np.float32)
    layout = layout_of(*shape)
    fields = np.full(layout.size, np.nan, np.float32)
    planes = fields.reshape(-1, layout.plane)[:2, : (shape[0] + 1) * layout.pitch].reshape(2, -1, layout.pitch)
    inside = planes[:, 1:, LANES : LANES + shape[1]]
    assert np.shares_memory(inside, fields)
    inside[:] = flow
    median(fields, layout, size, np.full(scratch_rows(size) * layout.pitch, np.nan, np.float32))
    np.testing.assert_array_equal(inside, median_of_windows(flow, size))
