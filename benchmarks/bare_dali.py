"""Bare DALI: the frames of the same clips decoded from memory, cropped, mirrored and normalized, without drawing clips
and without reading or checking bytes: the maximum speed of DALI's own decoders, and the limit of a loader that uses
them.

The fastest settings that DALI offers, each measured on one core: frames padded to one array (one array per frame costs
0.25 ms per clip of 16 frames), passed without a copy, three batches in advance, the fast inverse DCT, one thread.
"""

import itertools
from collections.abc import Iterator

from nvidia.dali.pipeline import Pipeline
from nvidia.dali.tensors import TensorListCPU

from lgd.benchmarks.loader_baselines import ShardClips
from lgd.pipeline.dataset.dataset import STREAMS
from lgd.pipeline.loading.dali import decode, normalize
from lgd.pipeline.loading.frame_inputs import FrameInputs, frame_inputs, input_nodes

PREPARED = 4  # batches, used in turn


def decoded(clips: ShardClips, batch: int) -> Iterator[int]:
    """Yield the number of clips in each batch that DALI has decoded, without end."""
    prepared = [_prepare(clips, range(number * batch, (number + 1) * batch)) for number in range(PREPARED)]
    stream = STREAMS[clips.index.spec.stream]
    frames = batch * clips.order.sampling.frames
    pipeline = Pipeline(batch_size=frames, num_threads=1, device_id=None, prefetch_queue_depth=3)
    with pipeline:
        inputs = input_nodes(itertools.cycle(prepared).__next__, stream, no_copy=True)
        pictures = decode(inputs, stream, use_fast_idct=True)
        pipeline.set_outputs(normalize(pictures, inputs, stream, transform=clips.transform))
    pipeline.build()
    while True:
        pipeline.run()
        yield batch


def _prepare(clips: ShardClips, positions: range) -> FrameInputs[TensorListCPU]:
    """Return the inputs of one batch."""
    batch = clips.order.clips_at(positions)
    jpegs = [clips.jpegs(clip) for clip in batch]
    inputs = frame_inputs(clips.index, batch, jpegs, transform=clips.transform, crop_mode="random")
    return FrameInputs(*map(TensorListCPU, inputs))
