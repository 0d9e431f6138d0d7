"""The compiled warping, against OpenCV's cubic sampling."""

from typing import Any

import cv2
import numpy as np
import pytest

from lgd.preprocessing.flow.numba_kernels import differentiate
from lgd.preprocessing.flow.numba_layout import IX, IY, MINUS_INV, RHO0, U1, U2, layout_of
from lgd.preprocessing.flow.numba_vectors import LANES
from lgd.preprocessing.flow.numba_warp import warp
from tests.preprocessing.flow.textures import texture


def data_term(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return the gradient in x and y, -1 / its square, and the residual: 4 x H x W; flow: 2 x H x W."""
    height, width = first.shape
    layout = layout_of(height, width)
    fields = np.full(layout.size, np.nan, np.float32)
    planes = fields.reshape(-1, layout.plane)[:, : (height + 1) * layout.pitch]
    inside = [plane.reshape(-1, layout.pitch)[1:, LANES : LANES + width] for plane in planes]
    inside[U1][:], inside[U2][:] = flow
    gradients = np.empty((height + 3, width + 3, 4), np.float32)
    differentiate(second, gradients)
    row = -(-width // LANES) * LANES
    scratch = [np.full(size * row, np.nan, np.float32) for size in (4, 4, 1, 4)]
    padded = np.full(first.size + LANES, np.nan, np.float32)  # vectors of the last pixels extend beyond the frame
    image = padded[: first.size].reshape(first.shape)
    image[:] = first
    warp(image, gradients, fields, layout, np.empty(row, np.int32), *scratch)
    return np.stack([inside[k] for k in (IX, IY, MINUS_INV, RHO0)])


@pytest.mark.parametrize("size", [(20, 37), (9, 16), (33, 64)])
def test_the_data_term_is_that_of_the_frame_sampled_at_the_flow(size):
    height, width = size
    first = texture(height, width).astype(np.float32)
    second = texture(height, width, 1.5, 0.5).astype(np.float32)
    flow = np.random.default_rng(0).normal(0, 3, (2, *size)).astype(np.float32)
    ix, iy, minus_inv, residual = data_term(first, second, flow)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    to_x, to_y = x + flow[0], y + flow[1]
    wide = np.pad(second, 1, mode="edge")
    planes: list[Any] = [second, (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2, (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2]
    # OpenCV rounds positions to 1/32 pixel.
    value, right, down = (cv2.remap(p, to_x, to_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for p in planes)
    outside = (to_x < 0) | (to_x > size[1] - 1) | (to_y < 0) | (to_y > size[0] - 1)
    assert outside.any()
    assert (ix[outside] == 0).all()
    assert (iy[outside] == 0).all()
    assert (minus_inv[outside] == 0).all()
    np.testing.assert_allclose(ix[~outside], right[~outside], atol=2)
    np.testing.assert_allclose(iy[~outside], down[~outside], atol=2)
    squared = ix[~outside] ** 2 + iy[~outside] ** 2
    np.testing.assert_allclose(minus_inv[~outside] * squared, -1, rtol=1e-5)
    expected = value - right * flow[0] - down * flow[1] - first
    assert np.abs(residual - expected)[~outside].mean() < 1


def test_whole_pixels_are_sampled_exactly_and_nan_gives_no_data_term():
    first, second = texture(20, 40).astype(np.float32), texture(20, 40, 1, 0).astype(np.float32)
    flow = np.zeros((2, 20, 40), np.float32)
    flow[0, :, :20] = 2
    ix, _, _, residual = data_term(first, second, flow)
    np.testing.assert_array_equal(ix[:, 5:15], (second[:, 8:18] - second[:, 6:16]) / 2)
    np.testing.assert_array_equal(residual[:, 25:35], second[:, 25:35] - first[:, 25:35])
    flow[0, 3, 4] = np.nan
    assert data_term(first, second, flow)[0, 3, 4] == 0
