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
Node = Any  # a node of a DALI graph; the unions in DALI's stubs do not accept the results of its own functions


class FrameInputs(NamedTuple, Generic[Input]):
    """One batch of N frames, with one entry per frame; a clip is T consecutive frames."""

    jpeg: Input
    """Encoded frames: N arrays of uint8."""
    anchor: Input
    """First row and first column of the crop window, pixels: int32 N x 2."""
    shape: Input
    """Height and width of the crop window, pixels: int32 N x 2."""
    mirror: Input
    """1 for a frame that is mirrored, else 0: int32 N."""
    plane_width: Input
    """Width of one plane, pixels: int32 N. Only streams with planes use it."""
    color_factors: Input
    """Factors of brightness, contrast and saturation: float32 N x 3. Only graphs with color jitter use it."""


def frame_inputs(
    index: Index,
    clips: Sequence[Clip],
    jpegs: Sequence[Sequence[np.ndarray]],
    *,
    transform: Transform,
    crop_mode: CropMode,
) -> FrameInputs[Any]:
    """Return the inputs of one batch. jpegs: T encoded frames per clip.

    Clips are mirrored only in the crop mode `random`."""
    planes = max(STREAMS[index.spec.stream].planes, 1)
    plane_widths = [int(index.widths[clip.row]) // planes for clip in clips]
    windows = np.array(
        [
            crop_window(transform, clip, int(index.heights[clip.row]), width=width, crop_mode=crop_mode)
            for clip, width in zip(clips, plane_widths, strict=True)
        ],
        np.int32,
    )
    mirrored = [clip.flip and transform.flip and crop_mode == "random" for clip in clips]
    per_clip = (
        windows[:, :2],
        windows[:, 2:],
        np.array(mirrored, np.int32),
        np.array(plane_widths, np.int32),
        np.array([color_factors(transform, clip) for clip in clips], np.float32),
    )
    frames = len(clips[0].frames)
    return FrameInputs(
        [frame for clip in jpegs for frame in clip], *(np.repeat(entry, frames, axis=0) for entry in per_clip)
    )


def input_nodes(
    source: Callable[[], FrameInputs[Any]], stream: Stream, *, jitter: bool = False, no_copy: bool | None = None
) -> FrameInputs[Node]:
    """Return the nodes of the graph that receive what `source` returns for each batch; None for inputs that are not
    used by this stream or without color jitter. To be called while the pipeline is being defined.

    no_copy: let DALI read the arrays where they are, which must then not change."""
    used = {"plane_width": stream.planes > 0, "color_factors": jitter}
    names = [name for name in FrameInputs._fields if used.get(name, True)]

    def used_inputs() -> tuple[Any, ...]:
        batch = source()
        return tuple(getattr(batch, name) for name in names)

    nodes = fn.external_source(source=used_inputs, num_outputs=len(names), batch=True, no_copy=no_copy)
    return FrameInputs(**dict.fromkeys(FrameInputs._fields) | dict(zip(names, nodes, strict=True)))
