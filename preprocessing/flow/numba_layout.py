"""Layout of the variables of the TV-L1 solver in memory."""

from typing import NamedTuple

from lgd.preprocessing.flow.numba_vectors import LANES

U1, U2, P11, P12, P21, P22, IX, IY, MINUS_INV, RHO0 = range(10)  # planes: flow, dual variables, data term
PLANES = 10

PAGE = 1024  # floats of 4096 bytes
PLANE_OFFSET = 176  # floats modulo PAGE
MIN_ROW_OFFSET, MAX_ROW_OFFSET = 128, 864  # floats modulo PAGE

CACHE_BYTES = 768 * 1024  # a part of the second-level cache: for the rows that iterations in flight work on
PART_BYTES = 512 * 1024  # of a frame: each such part is worth one iteration in flight
MAX_IN_FLIGHT = 8
STEP_VECTORS = 40  # minimum length of a step of an iteration, so that its begin and end hardly count


class Layout(NamedTuple):
    """Place of the variables of a scale in a 1-D array of float32.

    Rows have a margin of LANES pixels on both sides, so that neighbors exist at the borders and rows start on cache
    lines; there is one row above the first. A processor takes a load for one of a recent store if both have the same
    address modulo 4096, and waits: it makes iterations up to three times as slow. The strides prevent that for all
    variables of a row and of the row above.
    """

    height: int
    width: int
    pitch: int  # floats between rows
    plane: int  # floats between planes
    in_flight: int  # number of iterations that may follow each other over the frame
    rows: int  # that an iteration advances in one step

    @property
    def size(self) -> int:
        """Floats of all planes."""
        return PLANES * self.plane


def layout_of(height: int, width: int) -> Layout:
    """Return the layout of frames of height x width pixels."""
    pitch = LANES + -(-width // LANES) * LANES + LANES
    if pitch % PAGE < MIN_ROW_OFFSET:
        pitch += MIN_ROW_OFFSET - pitch % PAGE
    elif pitch % PAGE > MAX_ROW_OFFSET:
        pitch += PAGE - pitch % PAGE + MIN_ROW_OFFSET
    plane = (height + 1) * pitch
    rows = -(-STEP_VECTORS * LANES // width)
    plane += (PLANE_OFFSET - plane) % PAGE
    useful, possible = 1 + 4 * PLANES * plane // PART_BYTES, CACHE_BYTES // (4 * PLANES * pitch * (rows + 1))
    return Layout(height, width, pitch, plane, max(1, min(useful, possible, MAX_IN_FLIGHT)), rows)
