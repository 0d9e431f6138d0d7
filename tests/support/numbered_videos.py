"""Pictures that show their frame number, so that a test can tell which source frame each decoded frame is.

The picture is a table of 6 x 4 gray cells. The four corners mark the orientation (top white, bottom black); the other
cells of the upper half are the 10 bits of the number, those of the lower half the same bits inverted. A picture that
is blended, torn, turned or too damaged to read therefore has no number instead of a wrong one. The cells are large, so
that lossy codecs, reduced chroma and resizing do not matter.
"""

from fractions import Fraction

import numpy as np

COLUMNS, ROWS, BITS = 6, 4, 10
MAX_NUMBER = 2**BITS - 1
UNREADABLE = -1
# Levels of a cell between these are neither black nor white.
BLACK, WHITE = 90, 165

# The lavfi expression of one cell: X and Y are its column and row, N is the frame. The number of the bit is counted
# along the rows, without the corners: row 0 has bits 0 to 3, row 1 has bits 4 to 9.
_CORNER = "eq(X,0)+eq(X,5)"
_BIT = "X+if(eq(Y,0),-1,if(eq(Y,1),4,if(eq(Y,2),0,5)))"
_CELL = f"255*if(eq(Y,0)*({_CORNER}),1,if(eq(Y,3)*({_CORNER}),0,mod(floor((N+{{first}})/pow(2,{_BIT}))+gte(Y,2),2)))"
_ROW_0, _ROW_1 = [(0, column) for column in range(1, 5)], [(1, column) for column in range(6)]
_ROW_2, _ROW_3 = [(2, column) for column in range(6)], [(3, column) for column in range(1, 5)]


def numbered_source(rate: Fraction, frames: int, size: tuple[int, int], *, first: int = 0) -> str:
    """Return the lavfi source of a gray video whose frame n shows the number first + n.

    rate: frames per second; size: width and height in pixels, at least 24 x 16. Raises ValueError if a number has more
    than 10 bits.
    """
    if first + frames - 1 > MAX_NUMBER:
        raise ValueError(f"frame {first + frames - 1}: the largest number is {MAX_NUMBER}")
    cells = f"nullsrc=s={COLUMNS}x{ROWS}:r={rate},trim=end_frame={frames},format=gray"
    return f"{cells},geq=lum='{_CELL.format(first=first)}',scale={size[0]}:{size[1]}:flags=neighbor"


def read_numbers(pictures: np.ndarray) -> list[int]:
    """Return the number that each picture shows, UNREADABLE where it shows none.

    pictures: uint8, T x H x W, gray.
    """
    height, width = pictures.shape[1:]
    cells = np.empty((len(pictures), ROWS, COLUMNS))
    for row in range(ROWS):
        for column in range(COLUMNS):
            # Only the middle of the cell: its edges are blurred by resizing.
            rows = slice(round(height * (row + 0.3) / ROWS), max(1, round(height * (row + 0.7) / ROWS)))
            columns = slice(round(width * (column + 0.3) / COLUMNS), max(1, round(width * (column + 0.7) / COLUMNS)))
            cells[:, row, column] = pictures[:, rows, columns].mean(axis=(1, 2))
    white, black = cells > WHITE, cells < BLACK
    bits = np.stack([white[:, row, column] for row, column in _ROW_0 + _ROW_1], axis=1)
    inverted = np.stack([white[:, row, column] for row, column in _ROW_2 + _ROW_3], axis=1)
    readable = (white | black).all(axis=(1, 2)) & (bits != inverted).all(axis=1)
    readable &= white[:, 0, 0] & white[:, 0, -1] & black[:, -1, 0] & black[:, -1, -1]
    numbers = bits @ (1 << np.arange(BITS))
    return [int(number) if valid else UNREADABLE for number, valid in zip(numbers, readable, strict=True)]
