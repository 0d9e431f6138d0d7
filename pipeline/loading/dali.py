"""The one DALI graph: encoded JPEGs, windows and mirrorings in; normalized frames, channels last, out.

The same graph runs on the GPU (`mixed` decoding) and on the CPU (`device_id=None`), with the same results to within
the rounding of their JPEG decoders. A DALI sample here is one frame; a clip is T consecutive samples.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType, DALIImageType

from lgd.pipeline.dataset.dataset import Stream
from lgd.pipeline.loading.transform import Transform

FLOW_ZERO = 128.0  # the code of no motion


def build_pipeline(
    stream: Stream,
    transform: Transform,
    source: Callable[[], tuple[Any, ...]],
    *,
    max_frames: int,
    device_id: int | None,
    threads: int,
    half: bool = False,
    resize: int | None = None,
    jitter: bool = False,
    prefetch: int = 2,
) -> Pipeline:
    """Builds the graph.

    source: returns, for each batch, the inputs with an entry a frame, and raises StopIteration after the last:
    JPEG bytes (list of uint8); first row and column of the window (int32 N x 2) and its size (int32 N x 2); whether it
    is mirrored (int32 N); for planes, the columns between their left edges (int32 N); with `jitter`, the factors of
    brightness, contrast and saturation (float32 N x 3).
    most_frames: in any one batch. device_id: the GPU's number, or None for the CPU. half: float16 instead of float32.
    resize: side in pixels that windows are brought to. The output of `run` is one batch of frames H x W x C."""
    pipeline = Pipeline(batch_size=max_frames, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
    decoder = "cpu" if device_id is None else "mixed"
    with pipeline:
        inputs = fn.external_source(source=source, num_outputs=4 + bool(stream.planes) + jitter, batch=True)
        jpegs, anchor, shape, mirror, *rest = inputs
        if stream.planes:
            frames = _planes(jpegs, anchor, shape, apart=rest.pop(0), planes=stream.planes, decoder=decoder)
        else:
            frames = fn.decoders.image_slice(
                jpegs, anchor, shape, axis_names="HW", output_type=DALIImageType.RGB, device=decoder
            )
        if resize is not None:
            frames = fn.resize(frames, size=[resize, resize], antialias=True)
        if jitter:
            factors = rest.pop(0)
            frames = fn.color_twist(frames, brightness=factors[0], contrast=factors[1], saturation=factors[2])
        mean: Any = list(transform.mean)
        std: Any = list(transform.std)
        if stream.planes:
            # Mirroring negates x, the first plane: exactly, as x / -std.
            signs = fn.cat(1.0 - 2.0 * fn.reshape(mirror, shape=[1]), *[np.ones(1, np.float32)] * (stream.planes - 1))
            mean, std = [FLOW_ZERO] * stream.planes, transform.flow_std * signs
        frames = fn.crop_mirror_normalize(
            frames,
            mirror=mirror,
            mean=mean,
            std=std,
            dtype=DALIDataType.FLOAT16 if half else DALIDataType.FLOAT,
            output_layout="HWC",
        )
        pipeline.set_outputs(frames)
    pipeline.build()
    return pipeline


def _planes(jpegs, anchor, shape, *, apart, planes: int, decoder: str):
    """Gray planes that stand side by side -> channels, the same window of each; only its rows are decoded."""
    reach = fn.stack(0, apart * (planes - 1))
    picture = fn.decoders.image_slice(
        jpegs, anchor, shape + reach, axis_names="HW", output_type=DALIImageType.GRAY, device=decoder
    )
    cut = [fn.slice(picture, fn.stack(0, apart * number), shape, axis_names="HW") for number in range(planes)]
    return fn.cat(*cut, axis=2)
