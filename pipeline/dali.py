"""The one DALI graph: encoded JPEGs, crop windows and mirrorings in; normalised frames, channels last, out.

The same graph runs on the GPU (`mixed` decoding) and on the CPU (`device_id=None`), with the same results to within
the rounding of their JPEG decoders. A DALI sample here is one frame; a clip is T consecutive samples.
"""

from collections.abc import Iterator

import numpy as np
import nvidia.dali.fn as fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType, DALIImageType

from pipeline.dataset import Stream
from pipeline.transform import Transform

FLOW_ZERO = 128.0  # the code of no motion


def build_pipeline(
    stream: Stream,
    transform: Transform,
    source: Iterator[tuple[list[np.ndarray], ...]],
    most_frames: int,
    device_id: int | None,
    threads: int,
) -> Pipeline:
    """Builds the graph.

    source yields, for each batch, four lists with an entry a frame: JPEG bytes (uint8), first row and column of the
    crop window (int32 [y, x]), its size (int32 [h, w]), and whether it is mirrored (int32, 0 or 1).
    most_frames: in any one batch. device_id: the GPU's number, or None for the CPU.
    The output of `run` is one batch of frames H x W x C, float32."""
    device = "cpu" if device_id is None else "gpu"
    pipeline = Pipeline(batch_size=most_frames, num_threads=threads, device_id=device_id, prefetch_queue_depth=2)
    with pipeline:
        jpegs, anchor, shape, mirror = fn.external_source(source=source, num_outputs=4, batch=True)
        if stream.planes:
            frames = _planes(jpegs, anchor, shape, mirror, stream.planes, transform, device)
        else:
            frames = fn.decoders.image_slice(
                jpegs, anchor, shape, axis_names="HW", device=_decoder(device), output_type=DALIImageType.RGB
            )
            frames = fn.crop_mirror_normalize(
                frames,
                mirror=mirror,
                mean=transform.mean,
                std=transform.std,
                dtype=DALIDataType.FLOAT,
                output_layout="HWC",
            )
        pipeline.set_outputs(frames)
    pipeline.build()
    return pipeline


def _decoder(device: str) -> str:
    return "mixed" if device == "gpu" else "cpu"


def _planes(jpegs, anchor, shape, mirror, planes: int, transform: Transform, device: str):
    """Grey planes side by side -> channels, cropped alike; the first one, x, is negated where the clip is mirrored."""
    picture = fn.decoders.image(jpegs, device=_decoder(device), output_type=DALIImageType.GRAY)
    width = fn.cast(fn.peek_image_shape(jpegs)[1] // planes, dtype=DALIDataType.INT32)
    zero = fn.cast(width * 0, dtype=DALIDataType.INT32)
    channels = []
    for number in range(planes):
        corner = fn.stack(zero, fn.reshape(width * number, shape=[]))
        plane = fn.slice(picture, anchor + corner, shape, axis_names="HW")
        plane = fn.crop_mirror_normalize(
            plane,
            mirror=mirror,
            mean=[FLOW_ZERO],
            std=[transform.flow_std],
            dtype=DALIDataType.FLOAT,
            output_layout="HWC",
        )
        sign = 1.0 - 2.0 * mirror if number == 0 else None
        channels.append(plane if sign is None else plane * sign)
    return fn.cat(*channels, axis=2)
