"""The DALI graph. Inputs: encoded JPEGs, crop windows and mirroring. Output: normalized frames, channels last.

The same graph runs on the GPU (`mixed` decoding) and on the CPU (`device_id=None`). Both decoders interpolate the
colors, which JPEGs store at half the resolution, so that the results are equal except for the rounding of the two
decoders: a mean difference of less than 1 of 255. On a GPU this needs nvJPEG 13.2 (`nvjpeg.py`). Nearest colors, DALI's
default there, differ by up to 6 of 255. A DALI sample here is one frame; a clip is T consecutive samples.
"""

from collections.abc import Callable
from typing import Any

import nvidia.dali.fn as fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType, DALIImageType

from lgd.pipeline.dataset.dataset import Stream
from lgd.pipeline.loading.frame_inputs import FrameInputs, Node, input_nodes
from lgd.pipeline.loading.nvjpeg import check_nvjpeg
from lgd.pipeline.loading.transform import Transform

FLOW_ZERO = 128.0  # the code of no motion
# Share of the frames that the hardware decoder of a GPU gets, see `LoaderOptions.hw_decoder_load`: DALI's own default,
# and a larger one where the threads on the host are too few for the rest. Not measured yet, see
# `benchmarks/gpu/loader_settings.py`.
HW_DECODER_LOAD, HW_DECODER_LOAD_FEW_THREADS = 0.65, 0.9
MIN_DECODING_THREADS = 4


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
    hw_decoder_load: float | None = None,
) -> Pipeline:
    """Build the graph. The output of its `run` is one batch of frames H x W x C.

    source: returns the inputs of the next batch, and raises StopIteration after the last one.
    max_frames: maximum number of frames in a batch. device_id: number of the GPU, or None for the CPU.
    half: float16 instead of float32. resize: side in pixels to which crop windows are resized.
    jitter: change the colors by `FrameInputs.color_factors`. prefetch: batches that DALI computes ahead.
    hw_decoder_load: see `LoaderOptions`. The arrays of a batch must not change until its output has been returned.

    Raises UserError for a GPU if nvJPEG is too old."""
    if device_id is not None and not stream.planes:
        check_nvjpeg()
    pipeline = Pipeline(
        batch_size=max_frames,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
        exec_dynamic=True,  # each output has memory of its own, which the other executors overwrite: see hand_over.py
    )
    with pipeline:
        # On the CPU, DALI reads the arrays where they are. For a GPU it copies them to pinned memory.
        inputs = input_nodes(source, stream, jitter=jitter, no_copy=device_id is None)
        frames = decode(inputs, stream, **decoder_options(stream, device_id, threads=threads, load=hw_decoder_load))
        if resize is not None:
            frames = fn.resize(crop(frames, inputs, stream), size=[resize, resize], antialias=True)
        if jitter:
            factors = inputs.color_factors
            frames = fn.color_twist(frames, brightness=factors[0], contrast=factors[1], saturation=factors[2])
        dtype = DALIDataType.FLOAT16 if half else DALIDataType.FLOAT
        cropped = resize is not None
        pipeline.set_outputs(normalize(frames, inputs, stream, transform=transform, dtype=dtype, cropped=cropped))
    pipeline.build()
    return pipeline


def decoder_options(
    stream: Stream, device_id: int | None, *, threads: int, load: float | None = None
) -> dict[str, Any]:
    """Return the options of the JPEG decoder. load: see `LoaderOptions.hw_decoder_load`."""
    if device_id is None:
        return {"device": "cpu"}  # interpolates colors whatever the options are
    if load is None:
        load = HW_DECODER_LOAD if threads >= MIN_DECODING_THREADS else HW_DECODER_LOAD_FEW_THREADS
    return {"device": "mixed", "hw_decoder_load": load, "jpeg_fancy_upsampling": not stream.planes}


def decode(inputs: FrameInputs[Node], stream: Stream, **decoder: Any) -> Node:
    """Decode a part of each frame that contains the crop window, uint8.

    H x 1 x width x 3; of a stream with planes, H x planes x 1 x width of a plane. decoder: options of
    `fn.decoders.image_slice`."""
    color = DALIImageType.GRAY if stream.planes else DALIImageType.RGB
    frames = fn.decoders.image_slice(
        inputs.jpeg, inputs.anchor, inputs.shape, axis_names="HW", output_type=color, **decoder
    )
    # A row is a "frame" of height 1 in the names that DALI has for axes. Planes that lie side by side thereby become an
    # axis of their own in the same memory, and `crop_mirror_normalize` cuts out the window of each plane, mirrors,
    # normalizes and interleaves in one pass over the pixels.
    if not stream.planes:
        return fn.reshape(fn.expand_dims(frames, axes=[1]), layout="FHWC")
    return fn.reshape(frames, rel_shape=[1, stream.planes, 1, 1 / stream.planes], src_dims=[0, 2, 2, 1], layout="FCHW")


def crop(frames: Node, inputs: FrameInputs[Node], stream: Stream) -> Node:
    """Cut the crop window out of decoded frames: uint8, H x W x C."""
    channels = stream.planes or 3
    unchanged = {"mean": [0.0] * channels, "std": [1.0] * channels, "dtype": DALIDataType.UINT8}
    return fn.reshape(_crop(frames, inputs, **unchanged), layout="HWC")


def normalize(
    frames: Node,
    inputs: FrameInputs[Node],
    stream: Stream,
    *,
    transform: Transform,
    dtype: DALIDataType = DALIDataType.FLOAT,
    cropped: bool = False,
) -> Node:
    """Crop, mirror and normalize frames: H x W x C. Mirrored flow has its x component negated: exactly, as x / -std.

    cropped: the frames are crop windows already, H x W x C."""
    mean, std = ([FLOW_ZERO] * stream.planes, inputs.plane_std) if stream.planes else (transform.mean, transform.std)
    options: dict[str, Any] = {"mirror": inputs.mirror, "mean": mean, "std": std, "dtype": dtype}
    if cropped:
        return fn.crop_mirror_normalize(frames, output_layout="HWC", **options)
    return _crop(frames, inputs, **options)


def _crop(frames: Node, inputs: FrameInputs[Node], **options: Any) -> Node:
    """Cut the crop window out of decoded frames: H x W x C. options: of `crop_mirror_normalize`."""
    window = fn.crop_mirror_normalize(
        frames,
        crop_h=1.0,
        crop_w=inputs.window_width,
        crop_pos_x=inputs.window_x,
        output_layout="FHWC",
        **options,
    )
    return fn.squeeze(window, axes=[1])
