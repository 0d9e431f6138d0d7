"""Example videos: some correct, some wrong, and some whose prediction the fusion changed."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.inspection.pictures import Sheet, sheets
from lgd.training.report.results import Group

MAX_WRONG, MAX_RIGHT, MAX_FIXED, MAX_BROKEN, MAX_UNKNOWN = 6, 4, 4, 4, 6  # examples of each kind
SHORT_SIDE = 112  # maximum shorter side of a picture, pixels
JPEG_QUALITY = 72


@dataclass(frozen=True)
class ExamplePrediction:
    """The prediction of one score file for a video.

    file: short name of the file. series: its number in the report. predicted: class name. probability: of that class,
    a fraction of 1."""

    file: str
    series: int
    predicted: str
    probability: float
    correct: bool


@dataclass(frozen=True)
class Example:
    """A video as the report shows it.

    label: class name; None without a label. predictions: one per score file. moments: time of each picture, as text.
    pictures: stream -> data URIs, one per moment; empty without the dataset. full_color_px: speed that has the full
    color in the flow pictures, pixels per frame; None without flow."""

    key: str
    label: str | None
    predictions: list[ExamplePrediction]
    moments: list[str]
    pictures: dict[str, list[str]]
    full_color_px: float | None


def choose_examples(group: Group) -> dict[str, list[int]]:
    """Return rows of the group by kind, each row once; the same scores always give the same rows.

    fixed and broken: correct (wrong) in the fusion and wrong (correct) in its best input, the most confident first.
    wrong: the most confident ones. right: those of median confidence. unknown: videos without a label, from the most
    to the least confident. Kinds without videos are left out."""
    main = group.main
    order = np.lexsort((np.array(group.keys), -main.confidence))  # equal confidence: by key
    labeled = (group.labels != UNLABELLED)[order]
    correct = main.correct[order]
    kinds: dict[str, list[int]] = {}
    taken = np.zeros(len(order), bool)

    def take(kind: str, positions: np.ndarray) -> None:
        taken[positions] = True
        kinds[kind] = order[positions].tolist()

    if group.best_input is not None:
        correct_before = group.best_input.correct[order]
        take("fixed", np.flatnonzero(labeled & correct & ~correct_before)[:MAX_FIXED])
        take("broken", np.flatnonzero(labeled & ~correct & correct_before)[:MAX_BROKEN])
    take("wrong", np.flatnonzero(labeled & ~correct & ~taken)[:MAX_WRONG])
    remaining = np.flatnonzero(labeled & correct & ~taken)
    first = max((len(remaining) - MAX_RIGHT) // 2, 0)
    take("right", remaining[first : first + MAX_RIGHT])
    unknown = np.flatnonzero(~labeled)
    spread = np.linspace(0, len(unknown) - 1, min(MAX_UNKNOWN, len(unknown))).round().astype(np.int64)
    take("unknown", unknown[spread])
    return {kind: rows for kind, rows in kinds.items() if rows}


def examples(group: Group, dataset: Dataset | None) -> dict[str, list[Example]]:
    """Return the chosen videos by kind, with pictures of those that the dataset holds.

    Raises UserError for damaged frames."""
    kinds = choose_examples(group)
    keys = [group.keys[row] for rows in kinds.values() for row in rows]
    sheet_of = {sheet.metadata["key"]: sheet for sheet in sheets(dataset, keys)} if dataset else {}
    return {kind: [_example(group, row, sheet_of.get(group.keys[row])) for row in rows] for kind, rows in kinds.items()}


def _example(group: Group, row: int, sheet: Sheet | None) -> Example:
    label = int(group.labels[row])
    predictions = [
        ExamplePrediction(
            each.name,
            each.series,
            group.classes[each.predicted[row]],
            float(each.confidence[row]),
            bool(each.correct[row]),
        )
        for each in group.files
    ]
    return Example(
        group.keys[row],
        None if label == UNLABELLED else group.classes[label],
        predictions,
        [f"{number / sheet.fps:.1f} s" for number in sheet.frame_numbers] if sheet else [],
        {stream: [jpeg_uri(picture) for picture in of_stream] for stream, of_stream in sheet.pictures.items()}
        if sheet
        else {},
        sheet.full_color_px if sheet else None,
    )


def jpeg_uri(picture: np.ndarray) -> str:
    """Return a picture (uint8 H x W x 3, RGB) as the data URI of a JPEG, reduced to SHORT_SIDE."""
    height, width = picture.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    success, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not success:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {picture.shape}")
    return data_uri("image/jpeg", encoded.tobytes())


def data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def heat_map_uri(shares: Sequence[Sequence[float]] | np.ndarray, color: tuple[int, int, int]) -> str:
    """Return a matrix of fractions of 1 as the data URI of a PNG, one pixel per number.

    Each pixel is `color` (RGB); its opacity is the square root of the number, so that small numbers are visible."""
    opacity = np.rint(255 * np.sqrt(np.asarray(shares))).astype(np.uint8)
    picture = np.empty((*opacity.shape, 4), np.uint8)
    picture[..., :3], picture[..., 3] = color[::-1], opacity
    picture[opacity == 0] = 0
    success, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not success:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {picture.shape}")
    return data_uri("image/png", encoded.tobytes())
