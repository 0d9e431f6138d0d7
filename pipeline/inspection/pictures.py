"""Pictures of videos in a dataset, for people: one sheet per video, frames side by side, flow below RGB."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset import flow_code
from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.inspection.text import Color, draw_text, text_width
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import Storage

VIDEOS = 16  # drawn by default
FRAMES = 4  # shown per video
NO_CLASS = "(no label)"  # title of a video without one

# Shorter and longer side of a frame in a sheet, pixels: small frames are enlarged by an integer factor, large ones
# reduced.
MIN_SHORT, MAX_SHORT, MAX_LONG = 160, 256, 960
MARGIN = 12
WHEEL = 72  # diameter of the color wheel that explains the flow, pixels
LINE, DESCENT = 26, 8  # height of a line of text and the part of it below the baseline, pixels
TITLE_SIZE, TEXT_SIZE = 22, 14  # of the font, pixels
INK: Color = (32, 32, 32)
FAINT: Color = (96, 96, 96)
PAPER: Color = (232, 232, 232)  # not white, because flow is white where nothing moves

# The full color stands for a speed that all but this fraction of the vectors stay below, so that a single outlier does
# not make the others pale; and for at least this fraction of the code's bound, so that the noise of a still camera
# stays pale.
OUTLIERS, MIN_FULL_COLOR = 0.02, 0.05

_ClassName = TypedDict("_ClassName", {"class": str | None})  # in this form, since `class` is a keyword of Python


class DrawnVideo(_ClassName):
    """A video that was drawn.

    class: Class name of the video; null (None) for a video without a label."""

    file: str
    """Path of the picture."""
    key: str
    """Key of the video."""
    split: str
    """Split of the video."""
    frames: list[int]
    """Numbers of the frames shown, from 0."""
    full_color_px: float | None
    """Speed that has the full color, pixels per frame; null (None) without flow."""


@dataclass(frozen=True)
class Sheet:
    """The frames of one video that are shown, and its description."""

    metadata: Mapping[str, Any]
    """The row of videos.parquet."""
    fps: float
    """Frames per second."""
    frame_numbers: np.ndarray
    """Numbers of the frames shown (from 0): int64, N."""
    pictures: Mapping[str, np.ndarray]
    """By stream: uint8 N x H x W x 3, RGB."""
    full_color_px: float | None = None
    """Speed that has the full color, pixels per frame; None without flow."""
    bound: float | None = None
    """Largest motion that the flow code holds, pixels; None without flow."""


def draw_videos(dataset: Dataset, folder: str, videos: int = VIDEOS) -> list[DrawnVideo]:
    """Write a PNG for each of `videos` videos, evenly spaced in the index, to `folder`/<split>-<key>.png.

    Raises UserError if no stream of the dataset is complete, for a damaged frame, and for a folder that cannot be
    written."""
    readers = _readers(dataset)
    index = next(iter(readers.values())).index
    rows = evenly_spaced(len(index), videos)
    storage = Storage(folder)
    storage.make_folder()
    drawn: list[DrawnVideo] = []
    with Progress("draw", len(rows), "videos") as progress:
        for count, sheet in enumerate(_sheets(dataset, readers, rows), 1):
            video = sheet.metadata
            name = f"{video['split']}-{video['key']}.png"
            storage.write(name, _png(draw(sheet)))
            drawn.append(
                {
                    "file": storage.display(name),
                    "key": video["key"],
                    "split": video["split"],
                    "class": video["class"],
                    "frames": sheet.frame_numbers.tolist(),
                    "full_color_px": sheet.full_color_px,
                }
            )
            progress.update(count)
    return drawn


def sheets(dataset: Dataset, keys: Sequence[str]) -> Iterator[Sheet]:
    """Return the sheets of the videos with these keys, in the order of the index; missing keys are left out.

    Raises UserError if no stream of the dataset is complete, and for a damaged frame."""
    readers = _readers(dataset)
    index, chosen = next(iter(readers.values())).index, set(keys)
    rows = [row for row in range(len(index)) if index.key(row) in chosen]
    return _sheets(dataset, readers, np.array(rows, np.int64))


def _readers(dataset: Dataset) -> dict[str, ClipReader]:
    """Return a reader for each complete stream. Raises UserError if there is none."""
    dataset.check_has_stream()
    return {stream: ClipReader(Index(dataset, stream)) for stream in STREAMS if stream in dataset.streams}


def _sheets(dataset: Dataset, readers: Mapping[str, ClipReader], rows: np.ndarray) -> Iterator[Sheet]:
    indexes = {stream: reader.index for stream, reader in readers.items()}
    keys = next(iter(indexes.values())).keys(rows)
    table = dataset.videos()
    chosen = table.filter(pc.is_in(table["key"], pa.array(keys, pa.string()))).to_pylist()
    videos = {video["key"]: video for video in chosen}
    for row, key in zip(rows, keys, strict=True):
        if key not in videos or any(index.key(row) != key for index in indexes.values()):
            root = dataset.storage.display()
            raise UserError(f"{root}: the streams have different videos; check it with `lgd inspect {root} --verify`")
        frame_numbers = evenly_spaced(min(int(index.lengths[row]) for index in indexes.values()), FRAMES)
        frames = {stream: reader.read(row, frame_numbers) for stream, reader in readers.items()}
        fps = float(next(iter(indexes.values())).spec.settings["fps"])
        pictures = {}
        full_color_px = bound = None
        if "rgb" in frames:
            pictures["rgb"] = np.stack([decode_jpeg(jpeg, cv2.IMREAD_COLOR)[..., ::-1] for jpeg in frames["rgb"]])
        if "flow" in frames:
            bound = float(indexes["flow"].spec.settings["bound"])
            planes = np.stack([decode_jpeg(jpeg, cv2.IMREAD_GRAYSCALE) for jpeg in frames["flow"]])
            flow = flow_code.decode(planes, bound)
            full_color_px = full_color_speed(flow, bound)
            pictures["flow"] = flow_code.color(flow, full_color_px)
        yield Sheet(videos[key], fps, frame_numbers, pictures, full_color_px, bound)


def full_color_speed(flow: np.ndarray, bound: float) -> float:
    """Return the speed (pixels per frame) that has the full color in a sheet: near the maximum, and above noise."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    return max(float(np.quantile(speed, 1 - OUTLIERS)), MIN_FULL_COLOR * bound)


def decode_jpeg(jpeg: np.ndarray, mode: int) -> np.ndarray:
    """Return the pixels of a stored frame. mode: cv2.IMREAD_COLOR (H x W x 3, BGR) or cv2.IMREAD_GRAYSCALE (H x W)."""
    picture = cv2.imdecode(jpeg, mode)
    if picture is None:
        raise RuntimeError("OpenCV cannot decode a JPEG whose checksum is correct")
    return picture


def draw(sheet: Sheet) -> np.ndarray:
    """Return the sheet as one picture: uint8 H x W x 3, RGB: captions, one column per frame, and the color wheel."""
    rows = [np.stack([resize_for_display(picture) for picture in pictures]) for pictures in sheet.pictures.values()]
    height, width = rows[0].shape[1:3]
    body_width = len(sheet.frame_numbers) * (width + MARGIN) - MARGIN
    wheel = WHEEL if sheet.full_color_px is not None else 0
    captions = _captions(sheet)
    widest = max(text_width(line, size) for line, size in captions)
    sheet_width = max(body_width, widest + wheel + MARGIN) + 2 * MARGIN
    top = MARGIN + max(len(captions) * LINE, wheel) + MARGIN
    canvas = np.full((top + LINE + len(rows) * (height + MARGIN), sheet_width, 3), PAPER, np.uint8)
    for number, (line, size) in enumerate(captions):
        baseline = MARGIN + (number + 1) * LINE - DESCENT
        draw_text(canvas, line, left=MARGIN, baseline=baseline, size=size, color=INK)
    if wheel:
        left = sheet_width - MARGIN - wheel
        canvas[MARGIN : MARGIN + wheel, left : left + wheel] = color_wheel(wheel)
    for column, frame_number in enumerate(sheet.frame_numbers):
        left = MARGIN + column * (width + MARGIN)
        line = f"frame {frame_number}, {frame_number / sheet.fps:.2f} s"
        draw_text(canvas, line, left=left, baseline=top + LINE - DESCENT, size=TEXT_SIZE, color=FAINT)
        for number, pictures in enumerate(rows):
            above = top + LINE + number * (height + MARGIN)
            canvas[above : above + height, left : left + width] = pictures[column]
    return canvas


def _captions(sheet: Sheet) -> list[tuple[str, int]]:
    """Return lines of text, each with the size of its font."""
    video = sheet.metadata
    frames = f"{video['frames']} frames of {video['width']} x {video['height']} pixels, {sheet.fps:g} per second"
    lines = [(video["class"] or NO_CLASS, TITLE_SIZE), (f"{video['split']}, {video['key']}: {frames}", TEXT_SIZE)]
    if sheet.full_color_px is not None:
        flow = f"flow: full color means {sheet.full_color_px:.2f} pixels per frame or more, white means no motion"
        if (saturated := video.get("flow_saturated")) is not None:
            flow += f"; {saturated:.2%} of the vectors exceed the bound of {sheet.bound:.3g} pixels"
        lines.append((flow, TEXT_SIZE))
    return lines


def resize_for_display(picture: np.ndarray) -> np.ndarray:
    """Return a frame (H x W x 3) in a size that people can see: enlarged by an integer factor, or reduced with area
    averaging."""
    height, width = picture.shape[:2]
    short, long = min(height, width), max(height, width)
    if short > MAX_SHORT or long > MAX_LONG:
        scale = min(MAX_SHORT / short, MAX_LONG / long)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    factor = max(min(-(-MIN_SHORT // short), MAX_LONG // long), 1)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def color_wheel(diameter: int) -> np.ndarray:
    """Return the legend of the flow colors: a disc, uint8 diameter x diameter x 3, of the vectors from its center to
    its edge."""
    y, x = (np.indices((diameter, diameter)) - (diameter - 1) / 2) / (diameter / 2)
    flow = np.stack([x, y], axis=-1)
    disc = flow_code.color(flow, full=1.0)
    disc[np.hypot(x, y) > 1] = PAPER
    return disc


def _png(picture: np.ndarray) -> bytes:
    success, encoded = cv2.imencode(".png", picture[..., ::-1])
    if not success:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {picture.shape}")
    return encoded.tobytes()
