"""The PyTorch solver."""

import numpy as np
import pytest
import torch

from lgd.preprocessing.flow import torch_solver
from lgd.preprocessing.flow.tvl1 import compute_flow
from tests.preprocessing.flow.textures import median_of_windows, moving_texture


def test_a_batch_that_is_divided_to_save_memory_gives_the_same_bytes(monkeypatch):
    frames = moving_texture(6)
    expected = compute_flow(frames, backend="torch", device="cpu")
    monkeypatch.setitem(torch_solver.PIXELS_AT_ONCE, "cpu", 2 * frames[0].size)
    assert compute_flow(frames, backend="torch", device="cpu").tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 31), (23, 70)])
def test_median_filters_are_medians(size, shape):
    field = np.random.default_rng(1).integers(0, 30, (2, *shape)).astype(np.float32)
    median = torch_solver._median(torch.from_numpy(field)[None], size)[0]
    np.testing.assert_array_equal(median, median_of_windows(field, size))
