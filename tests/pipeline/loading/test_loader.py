"""The loader and its DALI graph, compared with decoding, cropping, mirroring and normalizing by OpenCV and NumPy."""

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.loading import transform as transform_module
from lgd.pipeline.loading.clip_order import Sampling, TrainOrder, UniformOrder
from lgd.pipeline.loading.loader import Batch, LoaderOptions, clips_per_batch, train_loader, uniform_loader
from lgd.pipeline.loading.reader import ClipReader, CorruptFrame
from lgd.pipeline.loading.transform import Transform, crop_window

TRANSFORM = Transform(crop=48)


def batches(dataset: Dataset, stream: str = "rgb", **options) -> list[Batch]:
    options = {"batch_size": 4, "steps": range(6), "transform": TRANSFORM, **options}
    return list(train_loader(dataset, stream, **options))


def expected(index: Index, order: TrainOrder | UniformOrder, position: int, crop: int | None) -> np.ndarray:
    """Return a clip, C x T x H x W, made with OpenCV and NumPy."""
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
def test_training_clips_equal_a_reference_without_dali(dataset: Dataset, stream: str):
    index = Index(dataset, stream)
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling(), seed=0)
    flips = 0
    for batch in batches(dataset, stream):
        for video, label, key, position in zip(*batch, strict=True):
            reference = expected(index, order, position, 48)
            scale = max(TRANSFORM.std) if stream == "rgb" else TRANSFORM.flow_std
            error = np.abs(video.numpy() - reference).mean() * scale
            assert error < 1  # on a scale of 255: JPEG decoders round differently
            row = order.clip(position).row
            assert (index.key(row), int(index.labels[row])) == (key, int(label))
            flips += order.clip(position).flip
    assert 0 < flips < 24


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_uniform_clips_are_full_frames_in_order(dataset: Dataset, stream: str):
    index = Index(dataset, stream)
    rows = index.rows("val")
    order = UniformOrder(rows, index.lengths[rows], Sampling(), clips=3)
    found = list(uniform_loader(dataset, stream, clips=3, transform=TRANSFORM, max_clips=4))
    assert [p for batch in found for p in batch.position] == list(range(3 * len(rows)))
    for batch in found:
        assert batch.video.shape[2:] == (16, 64, 80)
        for video, position in zip(batch.video, batch.position, strict=True):
            reference = expected(index, order, position, None)
            assert np.abs(video.numpy() - reference).mean() * 60 < 1


def test_batches_of_long_and_thin_full_frames_have_fewer_clips():
    aspects = np.array([1, 1.775, 3, 6, 16, 270, 65_000])
    assert clips_per_batch(aspects, 16).tolist() == [16, 16, 16, 8, 3, 3, 3]
    assert clips_per_batch(aspects, 1).tolist() == [1] * 7


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_of_frames_longer_than_the_maximum_the_middle_is_loaded(
    dataset: Dataset, stream: str, monkeypatch: pytest.MonkeyPatch
):
    arguments: dict[str, Any] = {"clips": 1, "transform": TRANSFORM, "max_clips": 1}
    (full, *_) = uniform_loader(dataset, stream, **arguments)
    monkeypatch.setattr(transform_module, "MAX_ASPECT", 1)
    (middle, *_) = uniform_loader(dataset, stream, **arguments)
    assert full.video.shape[3:] == (64, 80)
    assert torch.equal(middle.video, full.video[..., 8:72])


def test_mirrored_flow_negates_x_exactly(dataset: Dataset):
    plain = batches(dataset, "flow", transform=Transform(crop=64, flip=False), batch_size=8)
    mirrored = batches(dataset, "flow", transform=Transform(crop=64), batch_size=8)
    index = Index(dataset, "flow")
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling(), seed=0)
    mirrored_clips = 0
    for a, b in zip(plain, mirrored, strict=True):
        for x, y, position in zip(a.video, b.video, a.position, strict=True):
            clip = order.clip(position)
            if not clip.flip:
                assert torch.equal(x, y)
                continue
            mirrored_clips += 1
            # The mirrored clip has the same crop window: it is the other clip, mirrored.
            assert torch.equal(y[0], -x[0].flip(-1))
            assert torch.equal(y[1], x[1].flip(-1))
    assert mirrored_clips > 10


def test_batches_are_channels_last_in_memory_without_a_copy(dataset: Dataset):
    for stream, channels in (("rgb", 3), ("flow", 2)):
        for batch in batches(dataset, stream):
            assert batch.video.shape == (4, channels, 16, 48, 48)
            assert batch.video.is_contiguous(memory_format=torch.channels_last_3d)
            assert (batch.video.dtype, batch.label.dtype) == (torch.float32, torch.int64)


def test_a_batch_keeps_its_values_when_later_ones_are_loaded(dataset: Dataset):
    loader = iter(train_loader(dataset, "rgb", 4, steps=range(12), transform=TRANSFORM))
    first = next(loader)
    copy = first.video.clone()
    list(loader)
    assert torch.equal(first.video, copy)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_position_has_the_same_clip_with_any_number_of_workers(dataset: Dataset, stream: str, workers: int):
    alone = {
        p: video for batch in batches(dataset, stream) for p, video in zip(batch.position, batch.video, strict=True)
    }
    for rank in range(workers):
        for batch in batches(dataset, stream, rank=rank, workers=workers):
            for position, video in zip(batch.position, batch.video, strict=True):
                assert torch.equal(video, alone.pop(position))
    assert not alone


def test_a_restart_continues_the_sequence(dataset: Dataset):
    complete = [batch.key for batch in batches(dataset, steps=range(8))]
    assert [batch.key for batch in batches(dataset, steps=range(3, 8))] == complete[3:]
    assert len({tuple(keys) for keys in complete}) > 4


def test_short_videos_are_looped(dataset: Dataset):
    (batch,) = batches(dataset, sampling=Sampling(frames=100), steps=range(1), transform=Transform(crop=48, flip=False))
    assert batch.video.shape[2] == 100
    assert torch.equal(batch.video[:, :, 0], batch.video[:, :, 40])


def test_a_crop_that_does_not_fit_is_refused(dataset: Dataset):
    with pytest.raises(UsageError, match=r"crop of 112 pixels does not fit into frames of 64 pixels: preprocess with"):
        train_loader(dataset, "flow", 4, steps=range(1))


def test_a_closed_loader_ends_its_threads(dataset: Dataset):
    import threading

    before = threading.active_count()
    loader = train_loader(dataset, "rgb", 4, steps=range(1000), transform=TRANSFORM)
    next(iter(loader))
    loader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("clip-reader")]
    assert threading.active_count() <= before + 1


def test_a_damaged_frame_raises_its_own_error(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    def damaged(self, row, numbers):
        raise UserError("frame 3 is damaged")

    monkeypatch.setattr(ClipReader, "read", damaged)
    with pytest.raises(UserError, match="frame 3 is damaged"):
        batches(dataset)


def test_waiting_for_data_is_counted(dataset: Dataset):
    loader = train_loader(dataset, "rgb", 4, steps=range(5), transform=TRANSFORM)
    waits = [loader.data_wait_s for _ in loader]
    assert all(later > earlier for earlier, later in pairwise(waits))


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_half_precision_equals_float32_after_rounding(dataset: Dataset, stream: str, dtype: torch.dtype, step: float):
    for full, half in zip(
        batches(dataset, stream), batches(dataset, stream, options=LoaderOptions(dtype=dtype)), strict=True
    ):
        assert half.video.dtype == dtype
        assert half.video.is_contiguous(memory_format=torch.channels_last_3d)
        assert ((half.video.float() - full.video).abs() <= step * full.video.abs() + 1e-6).all()


@pytest.mark.parametrize(
    "options", [LoaderOptions(read_ahead=1, prefetch=1), LoaderOptions(read_ahead=8, prefetch=4, threads=2)]
)
def test_buffering_does_not_change_the_clips(dataset: Dataset, options: LoaderOptions):
    for plain, other in zip(batches(dataset), batches(dataset, options=options), strict=True):
        assert torch.equal(plain.video, other.video)


def test_resized_crops_come_from_the_clip_order_and_are_equal_in_all_frames(dataset: Dataset):
    transform = Transform(crop=32, resized_crop=0.25)
    index = Index(dataset, "rgb")
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling(), seed=0)
    areas = set()
    for batch in batches(dataset, transform=transform):
        assert batch.video.shape[2:] == (16, 32, 32)
        for video, position in zip(batch.video, batch.position, strict=True):
            clip = order.clip(position)
            top, left, height, width = crop_window(transform, clip, 64, width=80, crop_mode="random")
            areas.add(height * width)
            for number in (0, 15):
                jpeg = ClipReader(index).read(clip.row, clip.frames)[number]
                picture = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.float32)[:, :, ::-1]
                part = picture[top : top + height, left : left + width]
                # The filters of OpenCV and DALI differ, but on smooth pictures their results are close.
                resized = cv2.resize(part, (32, 32), interpolation=cv2.INTER_LINEAR)
                resized = resized[:, ::-1] if clip.flip else resized
                ours = video[:, number].permute(1, 2, 0).numpy() * np.array(transform.std) + np.array(transform.mean)
                assert np.abs(ours - resized).mean() < 6
    assert len(areas) > 10
    assert min(areas) < 0.5 * 64 * 80
    assert max(areas) > 0.7 * 64 * 80


def test_resized_flow_keeps_zero_and_negates_when_mirrored(dataset: Dataset):
    transform = Transform(crop=32, resized_crop=0.25)
    for plain, mirrored in zip(
        batches(dataset, "flow", transform=Transform(crop=32, resized_crop=0.25, flip=False)),
        batches(dataset, "flow", transform=transform),
        strict=True,
    ):
        for a, b in zip(plain.video, mirrored.video, strict=True):
            assert torch.equal(a, b) or (torch.equal(b[0], -a[0].flip(-1)) and torch.equal(b[1], a[1].flip(-1)))
        assert (plain.video == 0).float().mean() > 0.2  # where nothing moves, the result is exactly 0


def test_color_jitter_is_equal_in_all_frames_of_a_clip_and_does_not_change_flow(dataset: Dataset):
    changed, gains = Transform(crop=48, color_jitter=0.4), []
    for plain, jittered in zip(batches(dataset), batches(dataset, transform=changed), strict=True):
        difference = (jittered.video - plain.video).abs().mean((1, 2, 3, 4))
        assert (difference > 0.01).any()
        for a, b in zip(plain.video, jittered.video, strict=True):
            gains.append([np.polyfit(a[1, t].flatten(), b[1, t].flatten(), 1)[0] for t in range(16)])
    assert np.std(gains, axis=1).max() < 0.1  # over the frames of a clip
    assert np.std(gains) > 0.15
    for plain, same in zip(batches(dataset, "flow"), batches(dataset, "flow", transform=changed), strict=True):
        assert torch.equal(plain.video, same.video)


def test_damaged_clips_are_skipped_and_counted_with_skip_damaged(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    index = Index(dataset, "rgb")
    bad = batches(dataset)[1].key[2]
    read = ClipReader.read

    def damaged(self, row, numbers):
        if index.key(row) == bad:
            raise CorruptFrame(f"frame 3 of {bad} is damaged")
        return read(self, row, numbers)

    complete = batches(dataset)
    monkeypatch.setattr(ClipReader, "read", damaged)
    with pytest.raises(CorruptFrame):
        batches(dataset)
    loader = train_loader(
        dataset, "rgb", 4, steps=range(6), transform=TRANSFORM, options=LoaderOptions(skip_damaged=True)
    )
    skipped = 0
    for before, after in zip(complete, loader, strict=True):
        kept = [i for i, key in enumerate(before.key) if key != bad]
        skipped += len(before.key) - len(kept)
        assert after.key == [before.key[i] for i in kept]
        assert after.position == [before.position[i] for i in kept]
        assert torch.equal(after.video, before.video[kept])
    assert loader.skipped == skipped > 0


@pytest.mark.parametrize(
    "invalid",
    [{"dtype": torch.int32}, {"threads": 0}, {"read_ahead": 0}, {"hw_decoder_load": 1.1}, {"hw_decoder_load": -0.1}],
)
def test_invalid_loader_options_are_refused(invalid: dict):
    with pytest.raises(UsageError):
        LoaderOptions(**invalid)


def test_videos_without_a_label_are_never_trained_on(unlabelled_dataset: Dataset):
    loaded = batches(unlabelled_dataset, batch_size=2, steps=range(4))
    assert {label for batch in loaded for label in batch.label.tolist()} == {0, 1}
    keys = {key for batch in loaded for key in batch.key}
    assert len(keys) == 2
    with pytest.raises(UserError, match="no video of the split test has a label"):
        train_loader(unlabelled_dataset, "rgb", 2, steps=range(1), transform=TRANSFORM, split="test")


def test_videos_without_a_label_are_loaded_for_scoring_unless_they_are_left_out(unlabelled_dataset: Dataset):
    labels = [
        [
            label
            for batch in uniform_loader(unlabelled_dataset, "rgb", 1, split=split, labeled=labeled)
            for label in batch.label.tolist()
        ]
        for split, labeled in (("test", False), ("train", False), ("train", True))
    ]
    assert labels[0] == [UNLABELLED] * 2
    assert sorted(labels[1]) == [UNLABELLED, 0, 1]
    assert sorted(labels[2]) == [0, 1]
