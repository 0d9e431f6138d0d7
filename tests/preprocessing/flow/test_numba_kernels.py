"""The compiled loops of the numba solver, against OpenCV and NumPy."""

import cv2
import numpy as np
import pytest

from lgd.preprocessing.flow.numba_kernels import ONE, differentiate, resize
from tests.preprocessing.flow.textures import texture


@pytest.mark.parametrize("size", [(48, 60), (37, 41), (96, 112), (1, 1)])
def test_resize_is_bilinear_resampling(size):
    image = texture(60, 75).astype(np.float32)
    resized = np.empty(size, np.float32)
    resize(image, resized, image.shape[0] / size[0], image.shape[1] / size[1], ONE)
    reference = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resized, reference, atol=0.01)


def test_resize_multiplies_by_the_gain():
    resized = np.empty((5, 6), np.float32)
    resize(np.full((4, 4), 3, np.float32), resized, 4 / 5, 4 / 6, np.float32(1.25))
    assert (resized == 3.75).all()


def test_differentiate_gives_central_differences_with_repeated_borders():
    image = texture(9, 11).astype(np.float32)
    out = np.full((9 + 3, 11 + 3, 4), np.nan, np.float32)
    differentiate(image, out)
    wide = np.pad(image, 1, mode="edge")
    in_x, in_y = (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2, (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2
    expected = np.stack([image, in_x, in_y, np.zeros_like(image)], axis=-1)
    np.testing.assert_array_equal(out, np.pad(expected, ((1, 2), (1, 2), (0, 0)), mode="edge"))
