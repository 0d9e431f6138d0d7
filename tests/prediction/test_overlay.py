from pathlib import Path

import cv2
import numpy as np
import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.inspection.pictures import MARGIN
from lgd.pipeline.inspection.text import text_width
from lgd.prediction.overlay import (
    FONT_SIZE,
    LINE_HEIGHT,
    MAX_CLASSES,
    MIN_WIDTH,
    TIMELINE_HEIGHT,
    compose,
    drawn_predictions,
    output_names,
    shorten,
)
from lgd.prediction.overlay import _Panel as Panel
from lgd.preprocessing.video.decode import decode
from tests.prediction.random_runs import predict


@pytest.mark.parametrize("streams", [("rgb", "flow"), ("rgb",), ("flow",)])
def test_a_drawn_video_contains_the_source_and_its_flow(
    streams: tuple[str, ...], videos: Path, runs: dict[str, str], tmp_path: Path
):
    source = next(videos.rglob("sideways_001.mp4"))
    out = tmp_path / "drawn.mp4"
    (row,) = predict([source], **{s: runs[s] for s in streams}, render=str(out)).document()["videos"]
    assert row["render"] == str(out)
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.mp4"]
    written = out.read_bytes()
    assert written.index(b"moov") < written.index(b"mdat")  # it can be played while it loads
    shown = decode(source, 25, 256).rgb
    height, width = shown.shape[1:3]
    columns = 1 + ("flow" in streams)
    inside = columns * (width + MARGIN) - MARGIN
    size = max(inside, MIN_WIDTH) + 2 * MARGIN
    drawn = decode(out, 25, min_side(out)).rgb
    assert len(drawn) == row["frames"] == 40
    assert drawn.shape[2] == size
    left = (size - inside) // 2
    top = slice(MARGIN, MARGIN + height)
    for number in (0, 20, 39):
        picture = drawn[number, top, left : left + width].astype(int)
        assert np.abs(picture - shown[number]).mean() < 8
    if columns == 2:
        beside = drawn[20, top, left + width + MARGIN : left + inside].astype(int)
        assert np.ptp(beside, axis=-1).max() > 60  # moving parts have a color
        assert np.median(beside) > 200  # parts that do not move are nearly white


def min_side(path: Path) -> int:
    """Return the short side of a video, pixels."""
    found = cv2.VideoCapture(str(path))
    return int(min(found.get(cv2.CAP_PROP_FRAME_WIDTH), found.get(cv2.CAP_PROP_FRAME_HEIGHT)))


def test_one_file_for_two_videos_and_overwriting_a_source_are_refused(tmp_path: Path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"source")
    for out, sources in ((tmp_path / "b.mp4", [video, video]), (video, [video]), (tmp_path, [video])):
        with pytest.raises(UsageError):
            output_names(str(out), [str(path) for path in sources])
    (tmp_path / "c.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        output_names(str(tmp_path / "c.mp4"), [str(video)])
    assert video.read_bytes() == b"source"


def test_the_most_probable_classes_are_drawn_and_the_maximum_of_the_others_is_kept():
    probabilities = np.array([0.1, 0.5, 0.15, 0.25])
    over_time = np.array([[0.7, 0.1, 0.1, 0.1], [0.0, 0.4, 0.3, 0.3]])
    shown = drawn_predictions("abcd", probabilities, over_time, top=2)
    assert shown.classes == ["b", "d"]
    assert shown.over_time.tolist() == [[0.1, 0.1], [0.4, 0.3]]
    assert shown.others.tolist() == [0.7, 0.3]
    many = np.full(30, 1 / 30)
    assert len(drawn_predictions([f"c{i}" for i in range(30)], many, many[None], top=30).classes) == MAX_CLASSES


LONG = "jumping over a very long fence that has no end, again and again"


@pytest.mark.parametrize("text", ["jump", "jumping" * 20, LONG, "прыжок в длину " * 5, "静止画像" * 30, ""])
@pytest.mark.parametrize("width", [60, 100, 400])
def test_text_is_shortened_to_its_width_in_pixels(text: str, width: int):
    short = shorten(text, width)
    assert text_width(short, FONT_SIZE) <= width
    if text_width(text, FONT_SIZE) <= width:
        assert short == text
    else:
        kept = short.removesuffix("...")
        assert short != kept
        assert text.startswith(kept)
        assert text_width(text[: len(kept) + 1] + "...", FONT_SIZE) > width  # one more character would not fit


@pytest.mark.parametrize("classes", [["jump", "wave"], [LONG, "прыжок в длину " * 5], ["静止" * 40, "a\udcff\x00b"]])
def test_the_panel_keeps_names_bars_and_percentages_apart(classes: list[str]):
    probabilities = np.array([0.75, 0.25])
    shown = drawn_predictions(classes, probabilities, np.tile(probabilities, (10, 1)), top=2)
    width = MIN_WIDTH
    panel = Panel(shown, 25.0).draw(width, 3)
    assert panel.shape == (3 * LINE_HEIGHT + MARGIN // 2 + TIMELINE_HEIGHT, width, 3)
    start, length = Panel(shown, 25.0)._bar_columns(width)
    paper = panel[LINE_HEIGHT - 1, width // 2]
    for column in (start - MARGIN // 2, start + length + MARGIN // 2):  # gaps left and right of the bars
        assert (panel[LINE_HEIGHT : 3 * LINE_HEIGHT, column] == paper).all()
    assert (panel[:LINE_HEIGHT, width - text_width("0.12 s", FONT_SIZE) - MARGIN // 2] == paper).all()


def test_the_length_of_a_bar_is_the_probability_and_its_mark_moves():
    over_time = np.array([[0.9, 0.1], [0.2, 0.8]])
    shown = drawn_predictions(["jump", "wave"], np.array([0.6, 0.4]), over_time, top=2)
    panel = Panel(shown, 25.0)
    start, length = panel._bar_columns(MIN_WIDTH)
    row = LINE_HEIGHT + LINE_HEIGHT // 2
    for number, mark in ((0, 0.9), (1, 0.2), (7, 0.2)):  # frame 7 is after the last prediction
        line = panel.draw(MIN_WIDTH, number)[row, start : start + length]
        assert abs(int(line.sum(axis=-1).argmin()) - mark * length) <= 2
        colored = np.flatnonzero((line == np.array((0, 114, 178))).all(axis=-1))
        assert abs(colored[-1] + 1 - 0.6 * length) <= 2


def test_a_frame_has_even_sides_and_the_pictures_side_by_side():
    shown = drawn_predictions(["jump", "wave"], np.array([0.6, 0.4]), np.array([[0.6, 0.4]]), top=2)
    left, right = (np.full((101, 301, 3), value, np.uint8) for value in (10, 20))
    frame = compose([left, right], Panel(shown, 25.0), 0)
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert (frame[MARGIN : MARGIN + 101, MARGIN : MARGIN + 301] == 10).all()
    assert (frame[MARGIN : MARGIN + 101, 2 * MARGIN + 301 : 2 * MARGIN + 602] == 20).all()
