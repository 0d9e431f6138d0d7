"""Text in pictures, in a font with Latin, Greek, Cyrillic, Hebrew and Arabic letters: DejaVu Sans of matplotlib.

Characters that the font lacks, such as Chinese characters and most emoji, are drawn as a box."""

import math
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]  # red, green, blue, 0 to 255

UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def draw_text(canvas: np.ndarray, text: str, *, left: int, baseline: int, size: int, color: Color) -> None:
    """Draw one line of text, in place; what lies outside of the canvas is cut off.

    canvas: uint8 H x W x 3, RGB. left, baseline: of the first letter, pixels. size: of the font, pixels (capital
    letters are about 0.73 of it high)."""
    opacity, x, y = _rendered(_printable(text), size)
    top, left = baseline + y, left + x
    rows = slice(max(top, 0), max(min(top + opacity.shape[0], canvas.shape[0]), 0))
    columns = slice(max(left, 0), max(min(left + opacity.shape[1], canvas.shape[1]), 0))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    visible = opacity[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    region = canvas[rows, columns]
    region[:] = np.rint(region + (np.array(color, np.float32) - region) * visible)


def text_width(text: str, size: int) -> int:
    """Return the width of a line of text in pixels. size: of the font, pixels."""
    return math.ceil(_font(size).getlength(_printable(text)))


def _printable(text: str) -> str:
    """Return the text on one line, with composed letters; invisible formatting characters are removed, and control
    characters and lone surrogates are replaced by UNPRINTABLE."""
    characters = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category == "Zs":
            characters.append(" ")
        elif category != "Cf":
            characters.append(character if character.isprintable() else UNPRINTABLE)
    return "".join(characters)


@lru_cache(maxsize=512)
def _rendered(text: str, size: int) -> tuple[np.ndarray, int, int]:
    """Return the opacity of each pixel of a printable text (float32 H x W, 0 to 1), and the place of the upper left
    pixel relative to the start of the baseline."""
    font = _font(size)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text, anchor="ls"))
    image = Image.new("L", (max(right - left, 0), max(bottom - top, 0)))
    if image.width and image.height:
        ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font, anchor="ls")
    return np.asarray(image, np.float32) / 255, left, top


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # only here: importing it takes a quarter of a second

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
