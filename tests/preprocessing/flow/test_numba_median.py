"""The compiled median filter."""

import numpy as np
import pytest

from lgd.preprocessing.flow import numba_median
from lgd.preprocessing.flow.numba_kernels import LANES
from tests.preprocessing.flow.textures import median_of_windows


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 31), (23, 70)])
def test_median_filters_are_medians(size, shape):
    field = np.random.default_rng(1).integers(0, 30, (2, *shape)).astype(np.float32)
    height, width = shape
    pitch = LANES + -(-width // LANES) * LANES + LANES
    u = np.zeros((2, height + 1, pitch), np.float32)
    u[:, 1:, LANES : LANES + width] = field
    numba_median.median(u, width, size, np.zeros((size + 2, pitch), np.float32))
    np.testing.assert_array_equal(u[:, 1:, LANES : LANES + width], median_of_windows(field, size))
