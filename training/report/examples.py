"""Videos to look at: some that were predicted right, some wrong, and some of which the fusion changed the outcome."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.inspection.pictures import sheets
from lgd.training.report.results import Group
from lgd.training.scoring.scores import UNLABELLED

WRONG, RIGHT, MENDED, SPOILT, UNKNOWN = 6, 4, 4, 4, 6  # of each kind, at most
SHORT_SIDE = 112  # of a picture, pixels: larger frames are reduced
QUALITY = 72  # of its JPEG


@dataclass(frozen=True)
class Example:
    """A video as it is shown.

    label: class name, None where there is none. predictions: of each score file its name, class, probability (of 1),
    whether it is right, and its number in the report. pictures: by stream data URIs, a moment each. about: of the
    dataset's row, empty without the dataset. full: speed of the full color of the flow, pixels a frame."""

    key: str
    label: str | None
    predictions: list[dict[str, Any]]
    moments: list[str]
    pictures: dict[str, list[str]]
    about: dict[str, Any]
    full: float | None


def chosen(group: Group) -> dict[str, list[int]]:
    """Rows of the group by kind, none twice, always the same for the same scores.

    wrong: those with the most confidence. right: those with the median one. mended and spoilt: right (wrong) by the
    fusion and wrong (right) by its best input, the most confident first. unknown: without a label, from the most to
    the least confident."""
    lead = group.lead
    order = np.lexsort((np.array(group.keys), -lead.confidence))  # by key where the confidence is the same
    labelled = (group.labels != UNLABELLED)[order]
    right = lead.right[order]
    kinds: dict[str, list[int]] = {}
    taken = np.zeros(len(order), bool)

    def take(kind: str, which: np.ndarray) -> None:
        taken[which] = True
        kinds[kind] = order[which].tolist()

    if (other := group.best_input) is not None:
        before = other.right[order]
        take("mended", np.flatnonzero(labelled & right & ~before)[:MENDED])
        take("spoilt", np.flatnonzero(labelled & ~right & before)[:SPOILT])
    take("wrong", np.flatnonzero(labelled & ~right & ~taken)[:WRONG])
    free = np.flatnonzero(labelled & right & ~taken)
    first = max((len(free) - RIGHT) // 2, 0)
    take("right", free[first : first + RIGHT])
    unknown = np.flatnonzero(~labelled)
    parts = np.linspace(0, len(unknown) - 1, min(UNKNOWN, len(unknown))).round().astype(np.int64)
    take("unknown", unknown[parts])
    return {kind: rows for kind, rows in kinds.items() if rows}


def examples(group: Group, dataset: Dataset | None) -> dict[str, list[Example]]:
    """The chosen videos by kind, with pictures where there is a dataset that has them.

    Raises UserError for damaged frames."""
    kinds = chosen(group)
    keys = [group.keys[row] for rows in kinds.values() for row in rows]
    drawn = {sheet.about["key"]: sheet for sheet in sheets(dataset, keys)} if dataset else {}
    made: dict[str, list[Example]] = {}
    for kind, rows in kinds.items():
        made[kind] = []
        for row in rows:
            sheet = drawn.get(group.keys[row])
            label = int(group.labels[row])
            made[kind].append(
                Example(
                    group.keys[row],
                    None if label == UNLABELLED else group.classes[label],
                    _predictions(group, row),
                    [f"{moment / sheet.fps:.1f} s" for moment in sheet.moments] if sheet else [],
                    {stream: [picture_uri(each) for each in all_] for stream, all_ in sheet.pictures.items()}
                    if sheet
                    else {},
                    dict(sheet.about) if sheet else {},
                    sheet.full if sheet else None,
                )
            )
    return made


def _predictions(group: Group, row: int) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "series": each.series,
            "class": group.classes[each.predicted[row]],
            "probability": float(each.confidence[row]),
            "right": bool(each.right[row]),
        }
        for each in group.files
    ]


def picture_uri(picture: np.ndarray) -> str:
    """A picture (uint8 H x W x 3, RGB) as the data URI of a small JPEG."""
    height, width = picture.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of {picture.shape}")
    return data_uri("image/jpeg", encoded.tobytes())


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shares_picture(shares: Sequence[Sequence[float]] | np.ndarray, color: tuple[int, int, int]) -> str:
    """A matrix of fractions of 1 as the data URI of a PNG, a pixel each: `color` (RGB) that covers the page the more
    the larger the share, by its root, so that small ones are seen."""
    opacity = np.rint(255 * np.sqrt(np.asarray(shares))).astype(np.uint8)
    picture = np.empty((*opacity.shape, 4), np.uint8)
    picture[..., :3], picture[..., 3] = color[::-1], opacity
    picture[opacity == 0] = 0
    done, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of {picture.shape}")
    return data_uri("image/png", encoded.tobytes())
