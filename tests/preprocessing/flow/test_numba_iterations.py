"""The compiled iterations: any number of them in flight computes the same, also when one ends them."""

import numpy as np
import pytest

from lgd.preprocessing.flow.numba_iterations import iterate
from lgd.preprocessing.flow.numba_layout import IX, PLANES, Layout, layout_of
from lgd.preprocessing.flow.numba_vectors import LANES

STEPS = np.array([0.045, 0.3, 0.25 / 0.3], np.float32)


def run(layout: Layout, limit: float, iterations: int) -> tuple[np.ndarray, float]:
    """Return the flow and dual variables after iterations on random data, and the change of the last one."""
    height, width, pitch, plane, *_ = layout
    rng = np.random.default_rng(2)
    fields = np.full(layout.size + LANES, np.nan, np.float32)
    planes = [fields[k * plane : k * plane + (height + 1) * pitch].reshape(-1, pitch) for k in range(PLANES)]
    inside = [of_plane[1:, LANES : LANES + width] for of_plane in planes]
    for k in range(PLANES):
        inside[k][:] = rng.normal(0, 0.3, (height, width))
    for k in range(2, IX):
        planes[k][:] = 0
    change = np.empty(layout.in_flight * pitch, np.float32)
    last = iterate(fields, layout, change, np.float32(limit), iterations, *STEPS)
    return np.stack(inside[:IX]), float(last)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 16), (9, 5), (23, 33), (30, 70)])
def test_iterations_in_flight_compute_what_one_after_the_other_computes(size):
    one = layout_of(*size)._replace(in_flight=1, rows=1)
    changes = [run(one, -1, count)[1] for count in range(1, 13)]
    assert len(set(changes)) == len(changes)  # a test of the stop below
    for in_flight, rows in ((1, 4), (2, 1), (3, 2), (8, 1), (8, 7)):
        several = one._replace(in_flight=in_flight, rows=rows)
        # Limits that end the iterations at each possible one, exactly and just not.
        for limit in (-1.0, *changes, *np.nextafter(np.array(changes, np.float32), np.float32(0))):
            fields, last = run(several, limit, 12)
            expected, expected_last = run(one, limit, 12)
            assert last == expected_last
            assert fields.tobytes() == expected.tobytes()


def test_iterations_end_at_the_first_change_within_the_limit():
    layout = layout_of(30, 70)
    changes = np.array([run(layout, -1, count)[1] for count in range(1, 13)])
    for limit in changes:
        first = int(np.argmax(changes <= limit))
        assert run(layout, limit, 12)[1] == changes[first]
