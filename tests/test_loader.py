"""The loader and its DALI graph, against decoding, cropping, mirroring and normalising with OpenCV and NumPy."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.errors import UsageError, UserError
from pipeline.index import Index
from pipeline.loader import Batch, train_loader, uniform_loader
from pipeline.order import Sampling, TrainOrder, UniformOrder
from pipeline.reader import ClipReader
from pipeline.transform import Transform

TRANSFORM = Transform(crop=48)


def batches(dataset: Dataset, stream: str = "rgb", **options) -> list[Batch]:
    options = {"batch": 4, "steps": range(6), "transform": TRANSFORM, **options}
    return list(train_loader(dataset, stream, **options))


def expected(index: Index, order: TrainOrder | UniformOrder, position: int, crop: int | None) -> np.ndarray:
    """C x T x H x W, by OpenCV and NumPy."""
    clip = order.clip(position)
    frames = []
    for jpeg in ClipReader(index).read(clip.row, clip.frames):
        picture = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED), np.float32)
        if picture.ndim == 2:
            half = picture.shape[1] // 2
            channels = (np.stack([picture[:, :half], picture[:, half:]], 2) - 128) / TRANSFORM.flow_std
        else:
            channels = (picture[:, :, ::-1] - np.array(TRANSFORM.mean)) / np.array(TRANSFORM.std)
        if crop is not None:
            height, width = channels.shape[:2]
            top, left = int(clip.crop_y * (height - crop + 1)), int(clip.crop_x * (width - crop + 1))
            channels = channels[top : top + crop, left : left + crop]
        if clip.flip:
            channels = channels[:, ::-1]
            if picture.ndim == 2:
                channels = channels * np.array([-1, 1])
        frames.append(channels)
    return np.stack(frames).transpose(3, 0, 1, 2)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_training_clips_equal_a_plain_reference(dataset: Dataset, stream: str):
    index = Index(dataset, stream)
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling(), seed=0)
    flips = 0
    for batch in batches(dataset, stream):
        for video, label, key, position in zip(*batch, strict=True):
            reference = expected(index, order, position, 48)
            scale = max(TRANSFORM.std) if stream == "rgb" else TRANSFORM.flow_std
            error = np.abs(video.numpy() - reference).mean() * scale
            assert error < 1  # of 255: what JPEG decoders may differ in
            row = order.clip(position).row
            assert (index.key(row), int(index.labels[row])) == (key, int(label))
            flips += order.clip(position).flip
    assert 0 < flips < 24


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_uniform_clips_are_whole_frames_in_order(dataset: Dataset, stream: str):
    index = Index(dataset, stream)
    rows = index.rows("val")
    order = UniformOrder(rows, index.lengths[rows], Sampling(), 3)
    found = list(uniform_loader(dataset, stream, clips=3, transform=TRANSFORM, most_clips=4))
    assert [p for batch in found for p in batch.position] == list(range(3 * len(rows)))
    for batch in found:
        assert batch.video.shape[2:] == (16, 64, 80)
        for video, position in zip(batch.video, batch.position, strict=True):
            reference = expected(index, order, position, None)
            assert np.abs(video.numpy() - reference).mean() * 60 < 1


def test_mirrored_flow_negates_x_exactly(dataset: Dataset):
    plain = batches(dataset, "flow", transform=Transform(crop=64, flip=False), batch=8)
    mirrored = batches(dataset, "flow", transform=Transform(crop=64), batch=8)
    index = Index(dataset, "flow")
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling(), seed=0)
    seen = 0
    for a, b in zip(plain, mirrored, strict=True):
        for x, y, position in zip(a.video, b.video, a.position, strict=True):
            clip = order.clip(position)
            if not clip.flip:
                assert torch.equal(x, y)
                continue
            seen += 1
            # The crop is square and narrower than the frame: the mirrored window is the plain one, mirrored.
            assert torch.equal(y[0], -x[0].flip(-1))
            assert torch.equal(y[1], x[1].flip(-1))
    assert seen > 10


def test_batches_are_channels_last_in_memory_without_a_copy(dataset: Dataset):
    for stream, channels in (("rgb", 3), ("flow", 2)):
        for batch in batches(dataset, stream):
            assert batch.video.shape == (4, channels, 16, 48, 48)
            assert batch.video.is_contiguous(memory_format=torch.channels_last_3d)
            assert (batch.video.dtype, batch.label.dtype) == (torch.float32, torch.int64)


def test_a_batch_keeps_its_values_when_later_ones_are_loaded(dataset: Dataset):
    loader = iter(train_loader(dataset, "rgb", 4, range(12), transform=TRANSFORM))
    first = next(loader)
    copy = first.video.clone()
    list(loader)
    assert torch.equal(first.video, copy)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_position_holds_the_same_clip_whatever_the_workers(dataset: Dataset, stream: str, workers: int):
    alone = {
        p: video for batch in batches(dataset, stream) for p, video in zip(batch.position, batch.video, strict=True)
    }
    for rank in range(workers):
        for batch in batches(dataset, stream, rank=rank, workers=workers):
            for position, video in zip(batch.position, batch.video, strict=True):
                assert torch.equal(video, alone.pop(position))
    assert not alone


def test_a_restart_continues_the_sequence(dataset: Dataset):
    whole = [batch.key for batch in batches(dataset, steps=range(8))]
    assert [batch.key for batch in batches(dataset, steps=range(3, 8))] == whole[3:]
    assert len({tuple(keys) for keys in whole}) > 4


def test_short_videos_are_looped(dataset: Dataset):
    (batch,) = batches(dataset, sampling=Sampling(frames=100), steps=range(1), transform=Transform(crop=48, flip=False))
    assert batch.video.shape[2] == 100
    assert torch.equal(batch.video[:, :, 0], batch.video[:, :, 40])


def test_a_crop_that_does_not_fit_is_refused(dataset: Dataset):
    with pytest.raises(UsageError, match=r"crop of 112 pixels does not fit into frames of 64: preprocess with"):
        train_loader(dataset, "flow", 4, range(1))


def test_a_loader_can_be_left_early_and_its_threads_end(dataset: Dataset):
    import threading

    before = threading.active_count()
    loader = train_loader(dataset, "rgb", 4, range(1000), transform=TRANSFORM)
    next(iter(loader))
    loader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("clip-reader")]
    assert threading.active_count() <= before + 1


def test_a_damaged_frame_ends_in_its_own_error(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    def damaged(self, row, numbers):
        raise UserError("frame 3 is damaged")

    monkeypatch.setattr(ClipReader, "read", damaged)
    with pytest.raises(UserError, match="frame 3 is damaged"):
        batches(dataset)


def test_waiting_for_data_is_counted(dataset: Dataset):
    loader = train_loader(dataset, "rgb", 4, range(5), transform=TRANSFORM)
    waits = [loader.data_wait_s for _ in loader]
    assert all(later > earlier for earlier, later in pairwise(waits))
