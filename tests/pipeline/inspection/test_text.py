"""Text that is drawn into pictures."""

import sys

import numpy as np
import pytest

from lgd.pipeline.inspection.text import draw_text, text_width

SIZE = 20
PAPER, INK = 232, 32


def drawn(text: str, left: int = 0, baseline: int = SIZE, size: int = SIZE, width: int = 400) -> np.ndarray:
    canvas = np.full((2 * SIZE, width, 3), PAPER, np.uint8)
    draw_text(canvas, text, left=left, baseline=baseline, size=size, color=(INK, INK, INK))
    return canvas


MISSING = drawn("\N{CJK UNIFIED IDEOGRAPH-9759}")  # the box


@pytest.mark.parametrize(
    "text",
    ["Jumping Jack", "πηδάω ψάρι", "прыжок в длину", "żółć gęśl jaźń łódź", "Bücken È ñ ß", "שלום", "قفز"],
    ids=["Latin", "Greek", "Cyrillic", "Polish", "Western European", "Hebrew", "Arabic"],
)
def test_each_letter_of_a_supported_alphabet_has_its_own_glyph(text: str):
    letters = sorted({letter for letter in text if letter != " "})
    glyphs = {letter: drawn(letter).tobytes() for letter in letters}
    assert len(set(glyphs.values())) == len(letters)
    assert MISSING.tobytes() not in glyphs.values()
    assert drawn("").tobytes() not in glyphs.values()


@pytest.mark.parametrize("text", ["静", "止", "한", "\N{TROPICAL DRINK}"])
def test_a_character_that_the_font_lacks_is_a_box(text: str):
    np.testing.assert_array_equal(drawn(text), MISSING)
    dark = MISSING[..., 0] < (PAPER + INK) // 2
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    box = dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert min(box.shape) >= SIZE // 3
    assert all(edge.mean() > 0.9 for edge in (box[0], box[-1], box[:, 0], box[:, -1]))
    assert not box[3:-3, 3:-3].all()


@pytest.mark.parametrize(
    "text",
    ["", " ", "a\nb", "a\x00b\x1b[31m", "a\udcffb", "\u202eabc\u2066", "e\u0301\u0301\u0301", "a" * 5000, "\u0301"],
)
def test_any_string_is_drawn_on_one_line(text: str):
    canvas = drawn(text)
    assert (canvas[SIZE + SIZE // 2 :] == PAPER).all()
    assert text_width(text, SIZE) >= 0


def test_every_character_can_be_drawn():
    for first in range(0, sys.maxunicode + 1, 997):
        drawn(chr(first))


def test_composed_and_decomposed_letters_look_the_same_and_invisible_characters_have_no_width():
    np.testing.assert_array_equal(drawn("jaz\u0301n\u0301"), drawn("jaźń"))
    np.testing.assert_array_equal(drawn("a\u200b\u200fb"), drawn("ab"))
    np.testing.assert_array_equal(drawn("a\u00a0b"), drawn("a b"))


@pytest.mark.parametrize("text", ["Diving", "πηδάω", "прыжок", "静止", "a\udcffb"])
@pytest.mark.parametrize("size", [8, 14, 22])
def test_the_width_is_that_of_the_drawn_text(text: str, size: int):
    columns = np.flatnonzero((drawn(text, left=50, size=size) != PAPER).any(axis=(0, 2)))
    assert columns[0] >= 50 - 1
    assert abs(columns[-1] + 1 - (50 + text_width(text, size))) <= max(size // 5, 2)


def test_the_size_is_in_pixels_and_letters_stand_on_the_baseline():
    rows = np.flatnonzero((drawn("H") != PAPER).any(axis=(1, 2)))
    assert rows[-1] + 1 == SIZE
    assert len(rows) == pytest.approx(0.73 * SIZE, abs=1)
    assert drawn("H").min() == INK


@pytest.mark.parametrize(
    ("left", "baseline"),
    [(-9, SIZE), (395, SIZE), (0, 4), (0, 2 * SIZE + 6), (-500, SIZE), (500, SIZE), (0, -50), (0, 99)],
)
def test_text_outside_of_the_canvas_is_cut_off(left: int, baseline: int):
    large = np.full((200, 1500, 3), PAPER, np.uint8)
    draw_text(large, "Bowling", left=left + 600, baseline=baseline + 80, size=SIZE, color=(INK, INK, INK))
    np.testing.assert_array_equal(drawn("Bowling", left, baseline), large[80 : 80 + 2 * SIZE, 600:1000])
