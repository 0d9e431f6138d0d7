"""A video with what was predicted drawn below it, and its flow beside it: an mp4 that plays everywhere.

A class has a bar, as long as its probability over the whole video, and on it a mark that moves: its probability at this
moment. The strip at the bottom is the time: colored by the most probable class of every moment, gray for others.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from lgd.pipeline.console.errors import UsageError, UserError
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
    decoded,
    full_speed,
    text_width,
    writable,
    write,
)
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.video.decode import decode_each_frame
from lgd.preprocessing.video.h264 import h264_writer
from lgd.preprocessing.video.rejections import Limits, Rejected

MIN_WIDTH = 400  # of the picture, for the text
LINE, TEXT = 22, 0.5  # height of a line of text, pixels; its size
BAR, TIMELINE = 12, 14  # heights, pixels
SAMPLED = 16  # frames whose flow says which speed has the full color
MAX_DRAWN = 10  # classes
NAME = 50  # characters of a file's name that stay
SECONDS = 3600.0  # that drawing one video may take
# Of the classes in the order of their probabilities; those after them share the last one.
COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (150, 150, 150))


@dataclass(frozen=True)
class Predicted:
    """What is drawn. classes: names, the most probable first. probabilities: of each, over the whole video.
    over_time: frames x classes, in the same order; `others` is the largest of those not drawn, frames."""

    classes: Sequence[str]
    probabilities: np.ndarray
    over_time: np.ndarray
    others: np.ndarray


def predicted(names: Sequence[str], probabilities: np.ndarray, over_time: np.ndarray, *, top: int) -> Predicted:
    """The `top` most probable classes of all, or as many as there is room for."""
    order = np.argsort(-probabilities, kind="stable")
    first, rest = np.split(order, [min(top, MAX_DRAWN)])
    others = over_time[:, rest].max(1, initial=0.0)
    return Predicted([names[i] for i in first], probabilities[first], over_time[:, first], others)


def drawn_names(out: str, videos: Sequence[str]) -> tuple[Storage, list[str]]:
    """Where the drawn videos go: the folder, which is made, and a name in it for each of `videos`.

    out: the file itself, NAME.mp4, for one video; a folder for any number. Raises UsageError for one file for several
    videos, and for one that would take the place of a folder or of a video itself."""
    if out.endswith(".mp4"):
        if len(videos) != 1:
            raise UsageError(f"--render {out} is one file, for one video: give a folder for these {len(videos)}")
        if os.path.isdir(out):
            raise UsageError(f"--render {out} is a folder: choose the name of a file")
        folder, name = os.path.split(out)
        names = [name]
    else:
        folder, names = out, []
        for video in videos:
            name = "".join(c if c.isprintable() else "_" for c in Path(video).stem)[:NAME] or "video"
            tries = itertools.chain([f"{name}.mp4"], (f"{name}-{number}.mp4" for number in itertools.count(2)))
            names.append(next(each for each in tries if each not in names))
    storage = Storage(folder or ".")
    storage.make_folder()
    given = {os.path.realpath(video) for video in videos}
    for name in names:
        if os.path.realpath(storage.path(name)) in given:
            raise UsageError(
                f"--render would write over {storage.display(name)}, which is a video given: choose another"
            )
    return storage, names


def draw_video(
    path: Path, out: Storage, name: str, *, shown: Predicted, datasets: Mapping[str, Dataset], key: str
) -> None:
    """Writes `name` to `out`: H.264 with as many frames a second as the first stream has, without sound.

    path: the file that is the video `key` of the datasets, which are by stream; it is shown in its displayed aspect
    ratio, beside it the flow, if that is one of the streams, in the Middlebury color code. Raises UserError when it
    cannot be written."""
    stream, dataset = next(iter(datasets.items()))
    index, row = _found(dataset, stream, key)
    fps = float(index.spec.settings["fps"])
    height, width = int(index.heights[row]), int(index.widths[row]) // max(STREAMS[stream].planes, 1)
    short_side = max(min(MAX_SHORT, MAX_LONG * min(width, height) // max(width, height)), 2)
    motion = _flow_pictures(*_found(datasets["flow"], "flow", key), fps) if "flow" in datasets else None
    panel = _Panel(shown, fps)
    number = 0
    with h264_writer(out, name, fps, crf=20, faststart=True) as write_frame:

        def show(frame: np.ndarray) -> None:
            nonlocal number
            pictures = [frame]
            if motion is not None:
                colors = motion(number)
                pictures.append(cv2.resize(colors, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR))
            write_frame(compose(pictures, panel, number))
            number += 1

        try:
            decode_each_frame(path, fps, short_side, on_frame=show, limits=replace(Limits(), seconds=SECONDS))
        except Rejected as rejection:
            raise UserError(f"{out.display(name)} cannot be drawn: {rejection}") from rejection


def compose(pictures: Sequence[np.ndarray], panel: "_Panel", number: int) -> np.ndarray:
    """One picture of the drawn video: pictures (uint8 H x W x 3) side by side, the panel below; even sizes, as H.264's
    halved color planes need."""
    height, inside = pictures[0].shape[0], sum(picture.shape[1] + MARGIN for picture in pictures) - MARGIN
    width = max(inside, MIN_WIDTH) + 2 * MARGIN
    below = panel.draw(width - 2 * MARGIN, number)
    total = MARGIN + height + MARGIN + len(below) + MARGIN
    canvas = np.full((total + total % 2, width + width % 2, 3), PAPER, np.uint8)
    left = (width - inside) // 2
    for picture in pictures:
        canvas[MARGIN : MARGIN + height, left : left + picture.shape[1]] = picture
        left += picture.shape[1] + MARGIN
    canvas[MARGIN + height + MARGIN : total - MARGIN, MARGIN : width - MARGIN] = below
    return canvas


class _Panel:
    """What is written below a video: the class of the moment, a bar a class, and the classes along the time."""

    def __init__(self, shown: Predicted, fps: float):
        self._shown, self._fps = shown, fps
        self._still: np.ndarray | None = None  # what is the same in every frame
        best = np.concatenate([shown.over_time, shown.others[:, None]], axis=1)
        self._best = best.argmax(1)  # of every frame the class, by its place; len(classes): none of those drawn

    def draw(self, width: int, number: int) -> np.ndarray:
        """uint8 H x width x 3 for the frame of this number; the last moment holds on when the frames go on."""
        if self._still is None or self._still.shape[1] != width:
            self._still = self._draw_still(width)
        panel, shown = self._still.copy(), self._shown
        moment = min(number, len(self._best) - 1)
        best = int(self._best[moment])
        when = f"{number / self._fps:.2f} s"
        room = width - text_width(when, TEXT) - MARGIN
        if best < len(shown.classes):
            share = f" {shown.over_time[moment, best]:.0%}"
            line = fitted(f"now: {writable(shown.classes[best])}", room - text_width(share, TEXT)) + share
        else:
            line = "now: another class"
        write(panel, line, 0, baseline=LINE - 7, size=TEXT, ink=INK)
        write(panel, when, width - text_width(when, TEXT), baseline=LINE - 7, size=TEXT, ink=FAINT)
        start, length = self._columns(width)
        for place, share_now in enumerate(shown.over_time[moment]):
            x = start + round(float(share_now) * (length - 1))
            top = (place + 1) * LINE + (LINE - BAR) // 2
            panel[top - 2 : top + BAR + 2, max(x - 1, start) : x + 1] = INK
        x = round((moment + 0.5) / len(self._best) * width)
        panel[-TIMELINE:, max(x - 1, 0) : x + 1] = INK
        return panel

    def _draw_still(self, width: int) -> np.ndarray:
        shown = self._shown
        lines = len(shown.classes) + 1
        panel = np.full((lines * LINE + MARGIN // 2 + TIMELINE, width, 3), PAPER, np.uint8)
        start, length = self._columns(width)
        for place, (name, probability) in enumerate(zip(shown.classes, shown.probabilities, strict=True)):
            above = (place + 1) * LINE
            write(panel, fitted(writable(name), start - MARGIN), 0, baseline=above + LINE - 7, size=TEXT, ink=INK)
            share = f"{probability:.1%}"
            write(panel, share, width - text_width(share, TEXT), baseline=above + LINE - 7, size=TEXT, ink=INK)
            top = above + (LINE - BAR) // 2
            panel[top : top + BAR, start : start + length] = 255
            panel[top : top + BAR, start : start + round(float(probability) * length)] = _color(place)
        colors = np.array([*map(_color, range(len(shown.classes))), COLORS[-1]], np.uint8)
        along = colors[self._best][np.arange(width) * len(self._best) // width]
        panel[-TIMELINE:] = along
        return panel

    def _columns(self, width: int) -> tuple[int, int]:
        """Where the bars start, and how long 100 % is, pixels."""
        widest = max(text_width(writable(name), TEXT) for name in self._shown.classes)
        start = min(widest, width * 2 // 5) + MARGIN
        return start, width - start - MARGIN - text_width("100.0%", TEXT)


def _color(place: int) -> tuple[int, int, int]:
    return COLORS[min(place, len(COLORS) - 1)]


def fitted(text: str, width: int) -> str:
    """The text, cut off with dots where it is wider than this many pixels."""
    if text_width(text, TEXT) <= width:
        return text
    while text and text_width(text + "...", TEXT) > width:
        text = text[:-1]
    return text + "..."


def _found(dataset: Dataset, stream: str, key: str) -> tuple[Index, int]:
    index = Index(dataset, stream)
    return index, index.keys(range(len(index))).index(key)


def _flow_pictures(index: Index, row: int, fps: float) -> Callable[[int], np.ndarray]:
    """Of the number of a frame its flow in color (uint8 H x W x 3), on one scale for the whole video.

    fps: of the frames that are numbered. A video has one flow frame less than frames: the last one holds on."""
    reader, bound = ClipReader(index), float(index.spec.settings["bound"])
    ratio = float(index.spec.settings["fps"]) / fps
    last = int(index.lengths[row]) - 1

    def flow(numbers: np.ndarray) -> np.ndarray:
        planes = [decoded(jpeg, cv2.IMREAD_GRAYSCALE) for jpeg in reader.read(row, numbers)]
        return flow_code.decode(np.stack(planes), bound)

    full = full_speed(flow(evenly_spaced(last + 1, SAMPLED)), bound)
    return lambda number: flow_code.color(flow(np.array([min(int(number * ratio), last)]))[0], full)
