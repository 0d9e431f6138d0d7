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
    planes = STREAMS[stream].planes
    count = len(clips) * FRAMES
    for row, frame in zip(batch.jpeg, itertools.chain(*jpegs), strict=True):
        assert np.array_equal(row[: len(frame)], frame)
        assert not row[len(frame) :].any()
    types = {"anchor": (count, 2), "shape": (count, 2), "mirror": (count,)}
    for name, shape in types.items():
        values = getattr(batch, name)
        assert (values.shape, values.dtype) == (shape, np.int32)
    shapes = {"window_x": (count,), "window_width": (count,), "plane_std": (count, planes), "color_factors": (count, 3)}
    for name, shape in shapes.items():
        values = getattr(batch, name)
        assert (values.shape, values.dtype) == (shape, np.float32)
    for number, clip in enumerate(clips):
        frames = slice(number * FRAMES, (number + 1) * FRAMES)
        window = crop_window(TRANSFORM, clip, 64, width=80, crop_mode="random")
        assert batch.anchor[frames].tolist() == [[window.top, 0]] * FRAMES
        assert batch.shape[frames].tolist() == [[48, 80 * max(planes, 1)]] * FRAMES  # whole rows, over all planes
        assert (batch.window_x[frames] * (80 - 48)).round().tolist() == [window.left] * FRAMES
        assert batch.window_width[frames].tolist() == [48] * FRAMES
        assert batch.mirror[frames].tolist() == [int(clip.flip)] * FRAMES
        signs = [-1 if clip.flip else 1, 1][:planes]
        assert batch.plane_std[frames].tolist() == [[sign * TRANSFORM.flow_std for sign in signs]] * FRAMES
        expected = np.tile(np.array(color_factors(TRANSFORM, clip), np.float32), (FRAMES, 1))
        np.testing.assert_array_equal(batch.color_factors[frames], expected)
    assert 0 < batch.mirror.sum() < count


def test_of_frames_much_wider_than_the_window_only_the_window_is_decoded(dataset: Dataset):
    narrow = replace(TRANSFORM, crop=39)  # frames of 80 pixels
    clips, _, batch = inputs(dataset, "rgb", narrow)
    windows = [crop_window(narrow, clip, 64, width=80, crop_mode="random") for clip in clips]
    assert batch.anchor[::FRAMES].tolist() == [[window.top, window.left] for window in windows]
    assert batch.shape.tolist() == [[39, 39]] * len(batch.jpeg)
    assert not batch.window_x.any()
    assert inputs(dataset, "flow", narrow)[-1].shape.tolist() == [[39, 160]] * len(batch.jpeg)


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
    assert ("plane_std" in used) == (stream == "flow")
    assert ("color_factors" in used) == jitter
    assert len(used) == 6 + (stream == "flow") + jitter
    for name, output in zip(used, pipeline.run(), strict=True):
        for number, value in enumerate(getattr(batch, name)):
            np.testing.assert_array_equal(np.array(output.at(number)), value)
