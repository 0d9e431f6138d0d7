"""Vectors in compiled functions, against NumPy."""

import numpy as np

from lgd.preprocessing.flow import numba_vectors as vectors
from lgd.preprocessing.flow.numba_kernels import kernel
from lgd.preprocessing.flow.numba_vectors import LANES

SPECIAL = np.array([0, -0.0, 1, -2.5, np.inf, -np.inf, np.nan, 1e-40], np.float32)
A, B = (np.ascontiguousarray(array.ravel()) for array in np.meshgrid(SPECIAL, SPECIAL))  # every pair of them


@kernel
def _apply(a, b, out):
    for i in range(0, len(a), LANES):
        x, y = vectors.load(a, i), vectors.load(b, i)
        vectors.store(out[0], i, x + y)
        vectors.store(out[1], i, x - y)
        vectors.store(out[2], i, x * y)
        vectors.store(out[3], i, x / y)
        vectors.store(out[4], i, vectors.sqrt(x))
        vectors.store(out[5], i, vectors.absolute(x))
        vectors.store(out[6], i, vectors.truncate(x))
        vectors.store(out[7], i, vectors.minimum(x, y))
        vectors.store(out[8], i, vectors.maximum(x, y))
        vectors.store(out[9], i, vectors.equal(x, y))
        vectors.store(out[10], i, vectors.where_greater(x, y, x, y))


def test_operations_are_those_of_ieee_754_also_for_special_values():
    out = np.empty((11, len(A)), np.float32)
    _apply(A, B, out)
    with np.errstate(all="ignore"):
        expected = [
            A + B, A - B, A * B, A / B, np.sqrt(A), np.abs(A), np.trunc(A), np.where(B < A, B, A),
            np.where(B > A, B, A), A == B, np.where(A > B, A, B),
        ]  # fmt: skip
    for row, values in zip(out, expected, strict=True):
        values = np.asarray(values, np.float32)
        np.testing.assert_array_equal(row, values)
        numbers = ~np.isnan(values)
        np.testing.assert_array_equal(np.signbit(row[numbers]), np.signbit(values[numbers]))


@kernel
def _move(values, interleaved, separate):
    a, b = vectors.load(values, 0), vectors.load(values, 3)
    vectors.store_interleaved(interleaved, 1, a, b, vectors.lane_numbers(), vectors.splat(np.float32(7)))
    for row, vector in enumerate(vectors.load_interleaved(interleaved, 1)):
        vectors.store(separate, row * LANES, vector)
    return vectors.add_lanes(a)


def test_interleaving_and_sums_of_lanes():
    values = np.arange(100, 100 + 2 * LANES, dtype=np.float32)
    interleaved, separate = np.zeros(4 * LANES + 2, np.float32), np.zeros((4, LANES), np.float32)
    total = _move(values, interleaved, separate.reshape(-1))
    lanes = np.arange(LANES)
    np.testing.assert_array_equal(separate, [100 + lanes, 103 + lanes, lanes, np.full(LANES, 7)])
    np.testing.assert_array_equal(interleaved[1:-1].reshape(LANES, 4), separate.T)
    assert interleaved[0] == interleaved[-1] == 0  # nothing is written beside them
    assert total == values[:LANES].sum()
