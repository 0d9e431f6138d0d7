"""The PyTorch solver."""

import numpy as np
import pytest
import torch

from lgd.preprocessing.flow import torch_solver
from tests.preprocessing.flow.textures import median_of_windows


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 31), (23, 70)])
def test_median_filters_are_medians(size, shape):
    field = np.random.default_rng(1).integers(0, 30, (2, *shape)).astype(np.float32)
    median = torch_solver._median(torch.from_numpy(field)[None], size)[0]
    np.testing.assert_array_equal(median, median_of_windows(field, size))
