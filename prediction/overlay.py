"""A video with its prediction drawn below it and its optical flow next to it: an mp4 that plays everywhere.

Each class has a bar, whose length is its probability for the complete video, and a mark on the bar that moves: its
probability at the current moment. The strip at the bottom is a time line: its color is that of the most probable class
at each moment, gray for the classes that are not drawn.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.dataset import flow_code
from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.inspection.pictures import (
    FAINT,
    INK,
    MARGIN,
    MAX_LONG,
    MAX_SHORT,
    PAPER,
    decode_jpeg,
    full_color_speed,
)
from lgd.pipeline.inspection.text import draw_text, text_width
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import Storage
from lgd.prediction.long_videos import NOT_STORED, long_limits
from lgd.preprocessing.video.decode import decode_each_frame
from lgd.preprocessing.video.h264 import h264_writer
from lgd.preprocessing.video.rejections import Limits

MIN_WIDTH = 400  # of the panel with the text, pixels
LINE_HEIGHT, FONT_SIZE, DESCENT = 22, 14, 7  # of a line of text, pixels; DESCENT: between its baseline and its bottom
BAR_HEIGHT, TIMELINE_HEIGHT = 12, 14  # pixels
SCALE_FRAMES = 16  # flow frames that decide which speed has the full color
MAX_CLASSES = 10  # that are drawn
MAX_NAME = 50  # characters of the file name
CRF = 20  # x264's constant rate factor
# Colors of the classes by rank; all further classes have the last one.
COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (150, 150, 150))


@dataclass(frozen=True)
class DrawnPredictions:
    """The classes that are drawn, the most probable one first.

    probabilities: of each class for the complete video. over_time: frames x classes, in the same order. others: frames,
    the largest probability of the classes that are not drawn."""

    classes: Sequence[str]
    probabilities: np.ndarray
    over_time: np.ndarray
    others: np.ndarray


def drawn_predictions(
    classes: Sequence[str], probabilities: np.ndarray, over_time: np.ndarray, *, top: int
) -> DrawnPredictions:
    """Return the `top` most probable classes, at most MAX_CLASSES.

    probabilities: classes, for the complete video. over_time: frames x classes."""
    order = np.argsort(-probabilities, kind="stable")
    drawn, others = np.split(order, [min(top, MAX_CLASSES)])
    names = [classes[i] for i in drawn]
    return DrawnPredictions(
        names, probabilities[drawn], over_time[:, drawn], others=over_time[:, others].max(1, initial=0.0)
    )


def output_names(out: str, videos: Sequence[str]) -> tuple[Storage, list[str]]:
    """Return the folder of the drawn videos, which is created, and a file name in it for each of `videos`.

    out: NAME.mp4, the file itself, for one video; or else a folder. Raises UsageError for one file and several videos,
    and for a file that would overwrite a folder or one of the videos."""
    out = os.path.expanduser(out)
    if out.endswith(".mp4"):
        if len(videos) != 1:
            raise UsageError(f"--render {out} is one file, but there are {len(videos)} videos: give a folder")
        if os.path.isdir(out):
            raise UsageError(f"--render {out} is a folder: choose the name of a file")
        folder, name = os.path.split(out)
        names = [name]
    else:
        folder, names = out, []
        for video in videos:
            name = "".join(c if c.isprintable() else "_" for c in Path(video).stem)[:MAX_NAME] or "video"
            candidates = itertools.chain([f"{name}.mp4"], (f"{name}-{number}.mp4" for number in itertools.count(2)))
            names.append(next(candidate for candidate in candidates if candidate not in names))
    storage = Storage(folder or ".")
    storage.make_folder()
    sources = {os.path.realpath(video) for video in videos}
    for name in names:
        if os.path.realpath(storage.path(name)) in sources:
            raise UsageError(
                f"--render would overwrite {storage.display(name)}, one of the given videos: choose a different name "
                "or folder"
            )
    return storage, names


def draw_video(
    path: Path, out: Storage, name: str, *, shown: DrawnPredictions, datasets: Mapping[str, Dataset], key: str
) -> None:
    """Write the video `name` to `out`: H.264 with the frame rate of the first stream, without sound.

    path: the source file, drawn in its display aspect ratio. datasets: by stream, each with the video `key`; with the
    flow stream, the flow is drawn next to the video, in the Middlebury color code. Raises Rejected if the video cannot
    be decoded, and UserError if it cannot be written."""
    stream, dataset = next(iter(datasets.items()))
    index, row = _find(dataset, stream, key)
    fps = float(index.spec.settings["fps"])
    height, width = int(index.heights[row]), int(index.widths[row]) // max(STREAMS[stream].planes, 1)
    short_side = max(min(MAX_SHORT, MAX_LONG * min(width, height) // max(width, height)), 2)
    flow_picture = _flow_pictures(*_find(datasets["flow"], "flow", key), fps) if "flow" in datasets else None
    panel = _Panel(shown, fps)
    number = 0
    with h264_writer(out, name, fps, crf=CRF, faststart=True) as write_frame:

        def draw_frame(frame: np.ndarray) -> None:
            nonlocal number
            pictures = [frame]
            if flow_picture is not None:
                flow = flow_picture(number)
                pictures.append(cv2.resize(flow, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR))
            write_frame(compose(pictures, panel, number))
            number += 1

        decode_each_frame(path, fps, short_side, on_frame=draw_frame, limits=long_limits(Limits()))


def compose(pictures: Sequence[np.ndarray], panel: "_Panel", number: int) -> np.ndarray:
    """Return one frame of the drawn video, uint8 H x W x 3: the pictures side by side, and the panel below.

    pictures: uint8 H x W x 3. number: of the frame. H and W are even, since H.264 halves the color planes."""
    height, pictures_width = pictures[0].shape[0], sum(each.shape[1] + MARGIN for each in pictures) - MARGIN
    width = max(pictures_width, MIN_WIDTH) + 2 * MARGIN
    below = panel.draw(width - 2 * MARGIN, number)
    total = MARGIN + height + MARGIN + len(below) + MARGIN
    canvas = np.full((total + total % 2, width + width % 2, 3), PAPER, np.uint8)
    left = (width - pictures_width) // 2
    for picture in pictures:
        canvas[MARGIN : MARGIN + height, left : left + picture.shape[1]] = picture
        left += picture.shape[1] + MARGIN
    canvas[MARGIN + height + MARGIN : total - MARGIN, MARGIN : width - MARGIN] = below
    return canvas


class _Panel:
    """The text below a video: the class of the current moment, one bar per class, and the time line."""

    def __init__(self, shown: DrawnPredictions, fps: float):
        self._shown, self._fps = shown, fps
        self._background: np.ndarray | None = None  # what all frames have in common
        by_rank = np.concatenate([shown.over_time, shown.others[:, None]], axis=1)
        self._best = by_rank.argmax(1)  # rank of the best class of each frame; len(classes): one that is not drawn

    def draw(self, width: int, number: int) -> np.ndarray:
        """Return the panel of a frame, uint8 H x width x 3. A frame after the last prediction shows the last one."""
        if self._background is None or self._background.shape[1] != width:
            self._background = self._draw_background(width)
        panel, shown = self._background.copy(), self._shown
        moment = min(number, len(self._best) - 1)
        best = int(self._best[moment])
        time = f"{number / self._fps:.2f} s"
        time_left = width - text_width(time, FONT_SIZE)
        if best < len(shown.classes):
            percent = f" {shown.over_time[moment, best]:.0%}"
            room = time_left - MARGIN - text_width(percent, FONT_SIZE)
            text = shorten(f"now: {shown.classes[best]}", room) + percent
        else:
            text = "now: another class"
        _write(panel, text, left=0, line=0, color=INK)
        _write(panel, time, left=time_left, line=0, color=FAINT)
        start, length = self._bar_columns(width)
        for rank, probability in enumerate(shown.over_time[moment]):
            x = start + round(float(probability) * (length - 1))
            top = _bar_top(rank)
            panel[top - 2 : top + BAR_HEIGHT + 2, max(x - 1, start) : x + 1] = INK
        x = round((moment + 0.5) / len(self._best) * width)
        panel[-TIMELINE_HEIGHT:, max(x - 1, 0) : x + 1] = INK
        return panel

    def _draw_background(self, width: int) -> np.ndarray:
        shown = self._shown
        lines = len(shown.classes) + 1
        panel = np.full((lines * LINE_HEIGHT + MARGIN // 2 + TIMELINE_HEIGHT, width, 3), PAPER, np.uint8)
        start, length = self._bar_columns(width)
        for rank, (name, probability) in enumerate(zip(shown.classes, shown.probabilities, strict=True)):
            percent = f"{probability:.1%}"
            _write(panel, shorten(name, start - MARGIN), left=0, line=rank + 1, color=INK)
            _write(panel, percent, left=width - text_width(percent, FONT_SIZE), line=rank + 1, color=INK)
            top = _bar_top(rank)
            panel[top : top + BAR_HEIGHT, start : start + length] = 255
            panel[top : top + BAR_HEIGHT, start : start + round(float(probability) * length)] = _color(rank)
        colors = np.array([*map(_color, range(len(shown.classes))), COLORS[-1]], np.uint8)
        panel[-TIMELINE_HEIGHT:] = colors[self._best][np.arange(width) * len(self._best) // width]
        return panel

    def _bar_columns(self, width: int) -> tuple[int, int]:
        """Return where the bars start, and the length of a bar of 100 %, pixels."""
        widest = max(text_width(name, FONT_SIZE) for name in self._shown.classes)
        start = min(widest, width * 2 // 5) + MARGIN
        return start, width - start - MARGIN - text_width("100.0%", FONT_SIZE)


def _bar_top(rank: int) -> int:
    """Return the top row of a class's bar; line 0 of the panel has no bar."""
    return (rank + 1) * LINE_HEIGHT + (LINE_HEIGHT - BAR_HEIGHT) // 2


def _write(panel: np.ndarray, text: str, *, left: int, line: int, color: tuple[int, int, int]) -> None:
    """Draw text on a line of the panel, in place."""
    draw_text(panel, text, left=left, baseline=(line + 1) * LINE_HEIGHT - DESCENT, size=FONT_SIZE, color=color)


def _color(rank: int) -> tuple[int, int, int]:
    return COLORS[min(rank, len(COLORS) - 1)]


def shorten(text: str, width: int) -> str:
    """Return the text, cut off and ended with dots if it is wider than `width` pixels."""
    if text_width(text, FONT_SIZE) <= width:
        return text
    while text and text_width(text + "...", FONT_SIZE) > width:
        text = text[:-1]
    return text + "..."


def _find(dataset: Dataset, stream: str, key: str) -> tuple[Index, int]:
    """Return the index of a stream and the row of a video in it."""
    index = Index(dataset, stream)
    return index, index.keys(range(len(index))).index(key)


def _flow_pictures(index: Index, row: int, fps: float) -> Callable[[int], np.ndarray]:
    """Return a function: number of a frame -> its flow in color, uint8 H x W x 3, on one scale for the complete video.

    A long video has flow only where its clips are: elsewhere, the picture is blank.
    fps: frames per second of these frames. A video has one flow frame less than frames: the last one is used twice."""
    reader, bound = ClipReader(index), float(index.spec.settings["bound"])
    ratio = float(index.spec.settings["fps"]) / fps
    last = int(index.lengths[row]) - 1
    where = index.frames(row, np.arange(last + 1))
    is_stored = where.end - where.start > len(NOT_STORED)
    stored = np.flatnonzero(is_stored)
    blank = np.full((int(index.heights[row]), int(index.widths[row]) // 2, 3), PAPER, np.uint8)

    def flow(numbers: np.ndarray) -> np.ndarray:
        planes = [decode_jpeg(jpeg, cv2.IMREAD_GRAYSCALE) for jpeg in reader.read(row, numbers)]
        return flow_code.decode(np.stack(planes), bound)

    full = full_color_speed(flow(stored[evenly_spaced(len(stored), SCALE_FRAMES)]), bound)

    def picture(number: int) -> np.ndarray:
        frame = min(int(number * ratio), last)
        return flow_code.color(flow(np.array([frame]))[0], full) if is_stored[frame] else blank

    return picture
