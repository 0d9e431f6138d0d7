"""The DALI graph. Inputs: encoded JPEGs, crop windows and mirroring. Output: normalized frames, channels last.

The same graph runs on the GPU (`mixed` decoding) and on the CPU (`device_id=None`); the results are equal except for
the rounding of the two JPEG decoders. A DALI sample here is one frame; a clip is T consecutive samples.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType, DALIImageType

from lgd.pipeline.dataset.dataset import Stream
from lgd.pipeline.loading.frame_inputs import FrameInputs, Node, input_nodes
from lgd.pipeline.loading.transform import Transform

FLOW_ZERO = 128.0  # the code of no motion


def build_pipeline(
    stream: Stream,
    transform: Transform,
    source: Callable[[], FrameInputs[Any]],
    *,
    max_frames: int,
    device_id: int | None,
    threads: int,
    half: bool = False,
    resize: int | None = None,
    jitter: bool = False,
    prefetch: int = 2,
) -> Pipeline:
    """Build the graph. The output of its `run` is one batch of frames H x W x C.

    source: returns the inputs of the next batch, and raises StopIteration after the last one.
    max_frames: maximum number of frames in a batch. device_id: number of the GPU, or None for the CPU.
    half: float16 instead of float32. resize: side in pixels to which crop windows are resized.
    jitter: change the colors by `FrameInputs.color_factors`. prefetch: batches that DALI computes ahead."""
    pipeline = Pipeline(batch_size=max_frames, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
    device = "cpu" if device_id is None else "mixed"
    with pipeline:
        inputs = input_nodes(source, stream, jitter=jitter)
        frames = decode_window(inputs, stream, device=device)
        if resize is not None:
            frames = fn.resize(frames, size=[resize, resize], antialias=True)
        if jitter:
            factors = inputs.color_factors
            frames = fn.color_twist(frames, brightness=factors[0], contrast=factors[1], saturation=factors[2])
        dtype = DALIDataType.FLOAT16 if half else DALIDataType.FLOAT
        pipeline.set_outputs(normalize(frames, inputs, stream, transform=transform, dtype=dtype))
    pipeline.build()
    return pipeline


def decode_window(inputs: FrameInputs[Node], stream: Stream, **decoder: Any) -> Node:
    """Decode the crop window of each frame: H x W x C, uint8; C is 3, or the number of planes of the stream.

    decoder: options of `fn.decoders.image_slice`. Of planes that lie side by side, only the rows of the window are
    decoded, and the same window is cut out of each plane."""
    decoder = {"axis_names": "HW", **decoder}
    if not stream.planes:
        return fn.decoders.image_slice(
            inputs.jpeg, inputs.anchor, inputs.shape, output_type=DALIImageType.RGB, **decoder
        )
    span = fn.stack(0, inputs.plane_width * (stream.planes - 1))
    picture = fn.decoders.image_slice(
        inputs.jpeg, inputs.anchor, inputs.shape + span, output_type=DALIImageType.GRAY, **decoder
    )
    windows = [
        fn.slice(picture, fn.stack(0, inputs.plane_width * number), inputs.shape, axis_names="HW")
        for number in range(stream.planes)
    ]
    return fn.cat(*windows, axis=2)


def normalize(
    frames: Node,
    inputs: FrameInputs[Node],
    stream: Stream,
    *,
    transform: Transform,
    dtype: DALIDataType = DALIDataType.FLOAT,
) -> Node:
    """Mirror and normalize frames. Mirrored flow has its x component negated: exactly, as x / -std."""
    mean: Any = list(transform.mean)
    std: Any = list(transform.std)
    if stream.planes:
        # x is the first plane.
        signs = fn.cat(
            1.0 - 2.0 * fn.reshape(inputs.mirror, shape=[1]), *[np.ones(1, np.float32)] * (stream.planes - 1)
        )
        mean, std = [FLOW_ZERO] * stream.planes, transform.flow_std * signs
    return fn.crop_mirror_normalize(frames, mirror=inputs.mirror, mean=mean, std=std, dtype=dtype, output_layout="HWC")
