"""Pictures of what a dataset holds, for people: one sheet a video, its moments side by side, flow below RGB."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset import flow_code
from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import evenly
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import Storage

VIDEOS = 16  # drawn by default
MOMENTS = 4  # of a video

# A shown frame's shorter and longer side, pixels: small ones are enlarged a whole number of times, large ones reduced.
MIN_SHORT, MAX_SHORT, MAX_LONG = 160, 256, 960
MARGIN = 12
WHEEL = 72  # diameter of the color wheel that explains the flow, pixels
LINE = 26  # of text
INK, FAINT, PAPER = (32, 32, 32), (96, 96, 96), (232, 232, 232)  # not white: the flow is, where nothing moves

# The speed of the full color: what all but this share of the vectors stay below, so that a stray one does not pale
# the others, but at least this share of the code's bound, so that noise before a still camera stays pale.
FASTEST, MIN_FULL = 0.02, 0.05


@dataclass(frozen=True)
class Sheet:
    """One video as it is drawn.

    about: its row of videos.parquet. fps: frames a second. moments: numbers of the frames shown (from 0).
    pictures: by stream uint8 moments x H x W x 3, RGB. full: speed of the full color, pixels a frame, and bound: the
    largest motion that the code holds, pixels; None without flow."""

    about: Mapping[str, Any]
    fps: float
    moments: np.ndarray
    pictures: Mapping[str, np.ndarray]
    full: float | None = None
    bound: float | None = None


def draw_videos(dataset: Dataset, folder: str, videos: int = VIDEOS) -> list[dict[str, Any]]:
    """Writes a PNG for each of `videos` videos, evenly chosen over the index, to `folder`/<split>-<key>.png.

    Returns a row for each: file, key, split, class, the frames shown (numbers from 0) and full_color_px (None without
    flow). Raises UserError for a dataset none of whose streams is finished, a damaged frame, and a folder that cannot
    be written."""
    readers = _readers(dataset)
    index = next(iter(readers.values())).index
    rows = evenly(len(index), videos)
    storage = Storage(folder)
    storage.make_folder()
    drawn = []
    with Progress("draw", len(rows), "videos") as progress:
        for count, sheet in enumerate(_sheets(dataset, readers, rows), 1):
            name = f"{sheet.about['split']}-{sheet.about['key']}.png"
            storage.write(name, _png(draw(sheet)))
            about = {name: sheet.about[name] for name in ("key", "split", "class")}
            frames = sheet.moments.tolist()
            drawn.append({"file": storage.display(name), **about, "frames": frames, "full_color_px": sheet.full})
            progress.update(count)
    return drawn


def sheets(dataset: Dataset, keys: Sequence[str]) -> Iterator[Sheet]:
    """The videos with these keys as they are drawn, in the order of the index; those that it lacks are left out.

    Raises UserError for a dataset none of whose streams is finished, and a damaged frame."""
    readers = _readers(dataset)
    wanted, index = set(keys), next(iter(readers.values())).index
    rows = [row for row in range(len(index)) if index.key(row) in wanted]
    return _sheets(dataset, readers, np.array(rows, np.int64))


def _readers(dataset: Dataset) -> dict[str, ClipReader]:
    """By stream, of those that are whole. Raises UserError where none is."""
    if not dataset.streams:
        dataset.spec(next(iter(dataset.specs), "rgb"))  # says what is missing
    return {stream: ClipReader(Index(dataset, stream)) for stream in STREAMS if stream in dataset.streams}


def _sheets(dataset: Dataset, readers: Mapping[str, ClipReader], rows: np.ndarray) -> Iterator[Sheet]:
    indexes = {stream: reader.index for stream, reader in readers.items()}
    keys = next(iter(indexes.values())).keys(rows)
    table = dataset.videos()
    about = {row["key"]: row for row in table.filter(pc.is_in(table["key"], pa.array(keys, pa.string()))).to_pylist()}
    for row, key in zip(rows, keys, strict=True):
        if key not in about or any(index.key(row) != key for index in indexes.values()):
            raise UserError(f"{dataset.storage.root}: the streams do not list the same videos: `lgd inspect --verify`")
        moments = evenly(min(int(index.lengths[row]) for index in indexes.values()), MOMENTS)
        frames = {stream: reader.read(row, moments) for stream, reader in readers.items()}
        fps = float(next(iter(indexes.values())).spec.settings["fps"])
        pictures = {}
        full = bound = None
        if "rgb" in frames:
            pictures["rgb"] = np.stack([decoded(jpeg, cv2.IMREAD_COLOR)[..., ::-1] for jpeg in frames["rgb"]])
        if "flow" in frames:
            bound = float(indexes["flow"].spec.settings["bound"])
            planes = np.stack([decoded(jpeg, cv2.IMREAD_GRAYSCALE) for jpeg in frames["flow"]])
            flow = flow_code.decode(planes, bound)
            full = full_speed(flow, bound)
            pictures["flow"] = flow_code.color(flow, full)
        yield Sheet(about[key], fps, moments, pictures, full, bound)


def full_speed(flow: np.ndarray, bound: float) -> float:
    """The speed (pixels) that has the full color in a sheet: near the fastest, and not less than noise has."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    return max(float(np.quantile(speed, 1 - FASTEST)), MIN_FULL * bound)


def decoded(jpeg: np.ndarray, kind: int) -> np.ndarray:
    """The pixels of a stored frame. kind: as OpenCV names it, cv2.IMREAD_COLOR (then BGR) or cv2.IMREAD_GRAYSCALE."""
    picture = cv2.imdecode(jpeg, kind)
    if picture is None:
        raise RuntimeError("OpenCV cannot decode a JPEG that has the checksum with which it was written")
    return picture


def draw(sheet: Sheet) -> np.ndarray:
    """The sheet as one picture: uint8 H x W x 3, RGB. Caption, a column a moment, and what the colors mean."""
    rows = [np.stack([shown(picture) for picture in pictures]) for pictures in sheet.pictures.values()]
    height, width = rows[0].shape[1:3]
    body_width = len(sheet.moments) * (width + MARGIN) - MARGIN
    wheel = WHEEL if sheet.full is not None else 0
    captions = _captions(sheet)
    widest = max(text_width(line, size) for line, size, _ in captions)
    sheet_width = max(body_width, widest + wheel + MARGIN) + 2 * MARGIN
    top = MARGIN + max(len(captions) * LINE, wheel) + MARGIN
    canvas = np.full((top + LINE + len(rows) * (height + MARGIN), sheet_width, 3), PAPER, np.uint8)
    for number, (line, size, ink) in enumerate(captions):
        write(canvas, line, MARGIN, baseline=MARGIN + (number + 1) * LINE - 8, size=size, ink=ink)
    if wheel:
        left = sheet_width - MARGIN - wheel
        canvas[MARGIN : MARGIN + wheel, left : left + wheel] = color_wheel(wheel)
    for column, moment in enumerate(sheet.moments):
        left = MARGIN + column * (width + MARGIN)
        write(canvas, f"frame {moment}, {moment / sheet.fps:.2f} s", left, baseline=top + LINE - 8, size=0.5, ink=FAINT)
        for number, pictures in enumerate(rows):
            above = top + LINE + number * (height + MARGIN)
            canvas[above : above + height, left : left + width] = pictures[column]
    return canvas


def _captions(sheet: Sheet) -> list[tuple[str, float, tuple[int, int, int]]]:
    """Lines of text with their size and ink."""
    about = sheet.about
    size = f"{about['width']} x {about['height']} pixels"
    lines = [
        (writable(about["class"]), 0.8, INK),
        (f"{about['split']}, {about['key']}: {about['frames']} frames of {size}, {sheet.fps:g} a second", 0.5, INK),
    ]
    if sheet.full is not None:
        flow = f"flow: the full color is {sheet.full:.2f} pixels a frame or more, white no motion"
        if (saturated := about.get("flow_saturated")) is not None:
            flow += f"; {saturated:.2%} of the video's vectors are beyond the code's {sheet.bound:.3g} pixels"
        lines.append((flow, 0.5, INK))
    return lines


def shown(picture: np.ndarray) -> np.ndarray:
    """A frame (H x W x 3) in a size that a person can see: enlarged a whole number of times, or reduced by areas."""
    height, width = picture.shape[:2]
    short, long = min(height, width), max(height, width)
    if short > MAX_SHORT or long > MAX_LONG:
        scale = min(MAX_SHORT / short, MAX_LONG / long)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    times = max(min(-(-MIN_SHORT // short), MAX_LONG // long), 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def color_wheel(diameter: int) -> np.ndarray:
    """What each color means: a disc, uint8 diameter x diameter x 3, of the vectors from its center to its rim."""
    y, x = (np.indices((diameter, diameter)) - (diameter - 1) / 2) / (diameter / 2)
    flow = np.stack([x, y], axis=-1)
    disc = flow_code.color(flow, full=1.0)
    disc[np.hypot(x, y) > 1] = PAPER
    return disc


def writable(text: str) -> str:
    """The text with what OpenCV can draw: versions before 5 know only ASCII, and none a lone surrogate."""
    if not hasattr(cv2, "FontFace"):
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        text = text.encode("ascii", "replace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)


def write(canvas: np.ndarray, line: str, left: int, *, baseline: int, size: float, ink: tuple[int, int, int]) -> None:
    """Draws a line of `writable` text, in place. left, baseline: pixels."""
    cv2.putText(canvas, line, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def text_width(line: str, size: float) -> int:
    """Pixels of a line as `write` draws it."""
    return int(cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


def _png(picture: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of {picture.shape}")
    return encoded.tobytes()
