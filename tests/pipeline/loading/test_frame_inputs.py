"""The inputs of the DALI graph, made from clips, and their nodes in a graph."""

import itertools
import warnings
from dataclasses import replace

import numpy as np
import nvidia.dali.fn as fn
import pytest
from nvidia.dali.pipeline import Pipeline

from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import Clip, Sampling, TrainOrder
from lgd.pipeline.loading.frame_inputs import FrameInputs, frame_inputs, input_nodes
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.loading.transform import CropMode, Transform, color_factors, crop_window

FRAMES = 5
TRANSFORM = Transform(crop=48, color_jitter=0.4)


def inputs(
    dataset: Dataset, stream: str, transform: Transform = TRANSFORM, crop_mode: CropMode = "random"
) -> tuple[list[Clip], list[list[np.ndarray]], FrameInputs]:
    index = Index(dataset, stream)
    rows = index.rows("train")
    clips = TrainOrder(rows, index.lengths[rows], Sampling(FRAMES)).clips_at(range(6))
    jpegs = [ClipReader(index).read(clip.row, clip.frames) for clip in clips]
    return clips, jpegs, frame_inputs(index, clips, jpegs, transform=transform, crop_mode=crop_mode)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_each_frame_has_the_window_mirroring_and_factors_of_its_clip(dataset: Dataset, stream: str):
    clips, jpegs, batch = inputs(dataset, stream)
    assert all(map(np.array_equal, batch.jpeg, itertools.chain(*jpegs)))
    count = len(clips) * FRAMES
    shapes = {"anchor": (count, 2), "shape": (count, 2), "mirror": (count,), "plane_width": (count,)}
    for name, shape in shapes.items():
        values = getattr(batch, name)
        assert (values.shape, values.dtype) == (shape, np.int32)
    assert (batch.color_factors.shape, batch.color_factors.dtype) == ((count, 3), np.float32)
    assert batch.plane_width.tolist() == [80] * count  # of one of the two planes of flow
    for number, clip in enumerate(clips):
        frames = slice(number * FRAMES, (number + 1) * FRAMES)
        window = crop_window(TRANSFORM, clip, 64, width=80, crop_mode="random")
        assert batch.anchor[frames].tolist() == [[window.top, window.left]] * FRAMES
        assert batch.shape[frames].tolist() == [[48, 48]] * FRAMES
        assert batch.mirror[frames].tolist() == [int(clip.flip)] * FRAMES
        expected = np.tile(np.array(color_factors(TRANSFORM, clip), np.float32), (FRAMES, 1))
        np.testing.assert_array_equal(batch.color_factors[frames], expected)
    assert 0 < batch.mirror.sum() < count


def test_clips_are_mirrored_only_in_random_crops_and_if_the_transform_says_so(dataset: Dataset):
    assert inputs(dataset, "rgb", crop_mode="full_frame")[-1].mirror.sum() == 0
    assert inputs(dataset, "rgb", crop_mode="square")[-1].mirror.sum() == 0
    assert inputs(dataset, "rgb", replace(TRANSFORM, flip=False))[-1].mirror.sum() == 0
    assert inputs(dataset, "rgb")[-1].mirror.sum() > 0


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_nodes_receive_the_inputs_that_the_graph_uses_by_name(dataset: Dataset, stream: str, jitter: bool):
    batch = inputs(dataset, stream)[-1]
    pipeline = Pipeline(batch_size=len(batch.jpeg), num_threads=1, device_id=None)
    with warnings.catch_warnings(), pipeline:
        warnings.simplefilter("error")  # DALI warns about unused inputs
        nodes = input_nodes(lambda: batch, STREAMS[stream], jitter=jitter)
        used = {name: fn.cast_like(node, node) for name, node in nodes._asdict().items() if node is not None}
        pipeline.set_outputs(*used.values())
        pipeline.build()
    assert ("plane_width" in used) == (stream == "flow")
    assert ("color_factors" in used) == jitter
    assert len(used) == 4 + (stream == "flow") + jitter
    for name, output in zip(used, pipeline.run(), strict=True):
        for number, value in enumerate(getattr(batch, name)):
            np.testing.assert_array_equal(np.array(output.at(number)), value)
