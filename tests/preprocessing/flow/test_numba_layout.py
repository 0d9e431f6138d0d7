"""The layout of the solver's variables."""

from lgd.preprocessing.flow.numba_layout import (
    CACHE_BYTES,
    MAX_IN_FLIGHT,
    MAX_ROW_OFFSET,
    MIN_ROW_OFFSET,
    PAGE,
    PLANE_OFFSET,
    PLANES,
    layout_of,
)
from lgd.preprocessing.flow.numba_vectors import LANES


def test_rows_have_margins_and_no_two_planes_the_same_addresses_modulo_a_page():
    for width in range(1, 2000):
        layout = layout_of(7, width)
        assert layout.pitch >= LANES + -(-width // LANES) * LANES + LANES
        assert layout.pitch % LANES == layout.plane % LANES == 0
        assert layout.plane >= 8 * layout.pitch
        assert MIN_ROW_OFFSET <= layout.pitch % PAGE <= MAX_ROW_OFFSET
        assert layout.plane % PAGE == PLANE_OFFSET


def test_iterations_in_flight_fit_the_cache_and_small_frames_have_few():
    assert layout_of(16, 16).in_flight == 1
    for height, width in ((120, 160), (256, 340), (1080, 1920), (100, 20_000)):
        layout = layout_of(height, width)
        assert 1 <= layout.in_flight <= MAX_IN_FLIGHT
        rows = layout.in_flight * (layout.rows + 1)
        assert layout.in_flight == 1 or rows * 4 * PLANES * layout.pitch <= CACHE_BYTES
    assert layout_of(256, 340).in_flight > layout_of(120, 160).in_flight > 1
