"""The inputs of the DALI graph for one batch: encoded frames, and how each is cropped, mirrored and changed."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import nvidia.dali.fn as fn

from lgd.pipeline.dataset.dataset import STREAMS, Stream
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import Clip
from lgd.pipeline.loading.transform import CropMode, Transform, color_factors, crop_window

Input = TypeVar("Input")  # the values of a batch (arrays), or the nodes of the graph that receive them
MAX_WIDTHS = 2  # maximum width of a frame, in widths of the crop window, of which whole rows are decoded
Node = Any  # a node of a DALI graph; the unions in DALI's stubs do not accept the results of its own functions


class FrameInputs(NamedTuple, Generic[Input]):
    """One batch of N frames, with one entry per frame; a clip is T consecutive frames."""

    jpeg: Input
    """Encoded frames, each followed by zeros up to the length of the longest one: uint8 N x longest. A decoder stops at
    the end of the picture. DALI takes one array faster than N arrays."""
    anchor: Input
    """First row and first column of the part of the frame that is decoded, pixels: int32 N x 2."""
    shape: Input
    """Height and width of this part, pixels: int32 N x 2. It has the rows of the crop window, and its columns or all
    columns, see `frame_inputs`. The window is cut out of it later."""
    mirror: Input
    """1 for a frame that is mirrored, else 0: int32 N."""
    window_x: Input
    """Horizontal place of the crop window in the decoded part, or in a plane of it: 0 at the left edge, 1 at the right
    edge: float32 N."""
    window_width: Input
    """Width of the crop window, pixels: float32 N."""
    plane_std: Input
    """Divisor of each plane, negative for a plane that is negated: float32 N x planes. Only streams with planes use
    it."""
    color_factors: Input
    """Factors of brightness, contrast and saturation: float32 N x 3. Only graphs with color jitter use it."""


def frame_inputs(
    index: Index,
    clips: Sequence[Clip],
    jpegs: Sequence[Sequence[np.ndarray]],
    *,
    transform: Transform,
    crop_mode: CropMode,
) -> FrameInputs[np.ndarray]:
    """Return the inputs of one batch. jpegs: T encoded frames per clip.

    Clips are mirrored only in the crop mode `random`. The decoded part of a frame is the rows of the crop window in
    full width, unless the frame is much wider. To decode a part of a row, libjpeg-turbo still reads all of its bytes,
    and DALI copies each row from a buffer that is often not in the cache, which costs more than the other columns."""
    planes = STREAMS[index.spec.stream].planes
    plane_widths = [int(index.widths[clip.row]) // max(planes, 1) for clip in clips]
    windows = np.array(
        [
            crop_window(transform, clip, int(index.heights[clip.row]), width=width, crop_mode=crop_mode)
            for clip, width in zip(clips, plane_widths, strict=True)
        ],
        np.int32,
    )
    top, left, height, width = windows.T
    mirror = np.array([clip.flip and transform.flip and crop_mode == "random" for clip in clips], np.int32)
    full_width = np.array(plane_widths, np.int32)
    whole_rows = np.logical_or(planes > 0, full_width <= MAX_WIDTHS * width)
    first, part_width = np.where(whole_rows, 0, left), np.where(whole_rows, full_width, width)
    parts = np.stack([top, first, height, part_width * max(planes, 1)], axis=1).astype(np.int32)
    # Mirrored motion has its x component, the first plane, negated.
    plane_std = np.full((len(clips), planes), transform.flow_std, np.float32)
    plane_std[:, :1] *= 1 - 2 * mirror[:, None]
    per_clip = (
        parts[:, :2],
        parts[:, 2:],
        mirror,
        ((left - first) / np.maximum(part_width - width, 1)).astype(np.float32),
        width.astype(np.float32),
        plane_std,
        np.array([color_factors(transform, clip) for clip in clips], np.float32),
    )
    frames = len(clips[0].frames)
    return FrameInputs(
        pad([frame for clip in jpegs for frame in clip]), *(np.repeat(entry, frames, axis=0) for entry in per_clip)
    )


def pad(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return encoded frames as one array, see `FrameInputs.jpeg`."""
    padded = np.zeros((len(frames), max(map(len, frames))), np.uint8)
    for row, frame in zip(padded, frames, strict=True):
        row[: len(frame)] = frame
    return padded


def input_nodes(
    source: Callable[[], FrameInputs[Any]], stream: Stream, *, jitter: bool = False, no_copy: bool | None = None
) -> FrameInputs[Node]:
    """Return the nodes of the graph that receive what `source` returns for each batch; None for inputs that are not
    used by this stream or without color jitter. To be called while the pipeline is being defined.

    no_copy: let DALI read the arrays where they are, which must then not change."""
    used = {"plane_std": stream.planes > 0, "color_factors": jitter}
    names = [name for name in FrameInputs._fields if used.get(name, True)]

    def used_inputs() -> tuple[Any, ...]:
        batch = source()
        return tuple(getattr(batch, name) for name in names)

    nodes = fn.external_source(source=used_inputs, num_outputs=len(names), batch=True, no_copy=no_copy)
    return FrameInputs(**dict.fromkeys(FrameInputs._fields) | dict(zip(names, nodes, strict=True)))
