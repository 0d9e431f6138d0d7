"""Bare DALI: the frames of the same clips decoded from memory, cropped, mirrored and normalized. Nothing is drawn, read
or checked: what DALI's own decoders do at best, and so the ceiling of a loader that decodes by them.

Chosen from what DALI offers, each measured on one core: frames padded to one array (an entry a frame costs 0.25 ms a
clip of 16), taken without a copy, three batches ahead, the fast inverse DCT, one thread.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.tensors import TensorListCPU
from nvidia.dali.types import DALIDataType, DALIImageType

from lgd.benchmarks.loader_rivals import ShardClips
from lgd.pipeline.loading.dali import FLOW_ZERO
from lgd.pipeline.loading.transform import window

PREPARED = 4  # batches, taken in turn


def decoded(clips: ShardClips, batch: int) -> Iterator[int]:
    """The clips in each batch that DALI has made, without end."""
    prepared = [_prepare(clips, range(number * batch, (number + 1) * batch)) for number in range(PREPARED)]
    transform, planes = clips.transform, clips.planes
    frames = batch * clips.order.sampling.frames
    pipeline = Pipeline(batch_size=frames, num_threads=1, device_id=None, prefetch_queue_depth=3)
    with pipeline:
        jpegs, anchor, shape, mirror, *rest = fn.external_source(
            source=itertools.cycle(prepared), num_outputs=4 + bool(planes), batch=True, no_copy=True
        )
        decode: dict[str, Any] = {"axis_names": "HW", "use_fast_idct": True}
        mean: Any = list(transform.mean)
        std: Any = list(transform.std)
        if planes:
            (apart,) = rest
            picture = fn.decoders.image_slice(
                jpegs, anchor, shape + fn.stack(0, apart * (planes - 1)), output_type=DALIImageType.GRAY, **decode
            )
            cut = [fn.slice(picture, fn.stack(0, apart * n), shape, axis_names="HW") for n in range(planes)]
            picture = fn.cat(*cut, axis=2)
            signs = fn.cat(1.0 - 2.0 * fn.reshape(mirror, shape=[1]), *[np.ones(1, np.float32)] * (planes - 1))
            mean, std = [FLOW_ZERO] * planes, transform.flow_std * signs
        else:
            picture = fn.decoders.image_slice(jpegs, anchor, shape, output_type=DALIImageType.RGB, **decode)
        pipeline.set_outputs(
            fn.crop_mirror_normalize(
                picture, mirror=mirror, mean=mean, std=std, dtype=DALIDataType.FLOAT, output_layout="HWC"
            )
        )
    pipeline.build()
    while True:
        pipeline.run()
        yield batch


def _prepare(clips: ShardClips, positions: range) -> tuple[TensorListCPU, ...]:
    """JPEG bytes (padded: decoders stop at a picture's end), window, its size, mirroring; of planes also the columns
    between their left edges."""
    chosen = clips.order.clips_at(positions)
    jpegs = [jpeg for clip in chosen for jpeg in clips.jpegs(clip)]
    padded = np.zeros((len(jpegs), max(map(len, jpegs))), np.uint8)
    for row, jpeg in zip(padded, jpegs, strict=True):
        row[: len(jpeg)] = jpeg
    rows = [clip.row for clip in chosen]
    apart = clips.index.widths[rows] // max(clips.planes, 1)
    sizes = zip(chosen, clips.index.heights[rows].tolist(), apart.tolist(), strict=True)
    windows = np.array(
        [window(clips.transform, clip, height, width=width, part="drawn") for clip, height, width in sizes], np.int32
    )
    mirrors = np.array([clip.flip and clips.transform.flip for clip in chosen], np.int32)
    entries = [windows[:, :2], windows[:, 2:], mirrors]
    if clips.planes:
        entries.append(apart.astype(np.int32))
    frames = clips.order.sampling.frames
    return TensorListCPU(padded), *(TensorListCPU(np.repeat(entry, frames, axis=0)) for entry in entries)
