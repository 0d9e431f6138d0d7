"""The loader and its DALI graph, against decoding, cropping, mirroring and normalizing with OpenCV and NumPy."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import Sampling, TrainOrder, UniformOrder
from lgd.pipeline.loading.loader import Batch, LoaderOptions, train_loader, uniform_loader
from lgd.pipeline.loading.paired import paired_loader
from lgd.pipeline.loading.reader import ClipReader, CorruptFrame
from lgd.pipeline.loading.transform import Transform, window

TRANSFORM = Transform(crop=48)


def batches(dataset: Dataset, stream: str = "rgb", **options) -> list[Batch]:
    options = {"batch_size": 4, "steps": range(6), "transform": TRANSFORM, **options}
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
    order = UniformOrder(rows, index.lengths[rows], Sampling(), clips=3)
    found = list(uniform_loader(dataset, stream, clips=3, transform=TRANSFORM, max_clips=4))
    assert [p for batch in found for p in batch.position] == list(range(3 * len(rows)))
    for batch in found:
        assert batch.video.shape[2:] == (16, 64, 80)
        for video, position in zip(batch.video, batch.position, strict=True):
            reference = expected(index, order, position, None)
            assert np.abs(video.numpy() - reference).mean() * 60 < 1


def test_mirrored_flow_negates_x_exactly(dataset: Dataset):
    plain = batches(dataset, "flow", transform=Transform(crop=64, flip=False), batch_size=8)
    mirrored = batches(dataset, "flow", transform=Transform(crop=64), batch_size=8)
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
    loader = iter(train_loader(dataset, "rgb", 4, steps=range(12), transform=TRANSFORM))
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
        train_loader(dataset, "flow", 4, steps=range(1))


def test_a_loader_can_be_left_early_and_its_threads_end(dataset: Dataset):
    import threading

    before = threading.active_count()
    loader = train_loader(dataset, "rgb", 4, steps=range(1000), transform=TRANSFORM)
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
    loader = train_loader(dataset, "rgb", 4, steps=range(5), transform=TRANSFORM)
    waits = [loader.data_wait_s for _ in loader]
    assert all(later > earlier for earlier, later in pairwise(waits))


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_half_precision_is_the_same_rounded_and_channels_last(
    dataset: Dataset, stream: str, dtype: torch.dtype, step: float
):
    for whole, half in zip(
        batches(dataset, stream), batches(dataset, stream, options=LoaderOptions(dtype=dtype)), strict=True
    ):
        assert half.video.dtype == dtype
        assert half.video.is_contiguous(memory_format=torch.channels_last_3d)
        assert ((half.video.float() - whole.video).abs() <= step * whole.video.abs() + 1e-6).all()


@pytest.mark.parametrize("options", [LoaderOptions(ahead=1, prefetch=1), LoaderOptions(ahead=8, prefetch=4, threads=2)])
def test_what_is_read_ahead_changes_nothing(dataset: Dataset, options: LoaderOptions):
    for plain, other in zip(batches(dataset), batches(dataset, options=options), strict=True):
        assert torch.equal(plain.video, other.video)


def test_resized_crops_are_those_of_the_clip_order_and_the_same_for_all_frames(dataset: Dataset):
    transform = Transform(crop=32, resized_crop=0.25)
    index = Index(dataset, "rgb")
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling(), seed=0)
    areas = set()
    for batch in batches(dataset, transform=transform):
        assert batch.video.shape[2:] == (16, 32, 32)
        for video, position in zip(batch.video, batch.position, strict=True):
            clip = order.clip(position)
            top, left, height, width = window(transform, clip, 64, width=80, part="drawn")
            areas.add(height * width)
            for number in (0, 15):
                jpeg = ClipReader(index).read(clip.row, clip.frames)[number]
                picture = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.float32)[:, :, ::-1]
                part = picture[top : top + height, left : left + width]
                # OpenCV's area filter is not DALI's triangular one: on smooth pictures they are close.
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
        assert (plain.video == 0).float().mean() > 0.2  # where nothing moves, the code is exactly that of no motion


def test_colors_change_alike_in_all_frames_of_a_clip_and_flow_has_none(dataset: Dataset):
    changed, gains = Transform(crop=48, color_jitter=0.4), []
    for plain, jittered in zip(batches(dataset), batches(dataset, transform=changed), strict=True):
        difference = (jittered.video - plain.video).abs().mean((1, 2, 3, 4))
        assert (difference > 0.01).any()
        for a, b in zip(plain.video, jittered.video, strict=True):
            gains.append([np.polyfit(a[1, t].flatten(), b[1, t].flatten(), 1)[0] for t in range(16)])
    assert np.std(gains, axis=1).max() < 0.1  # of the frames of a clip
    assert np.std(gains) > 0.15
    for plain, same in zip(batches(dataset, "flow"), batches(dataset, "flow", transform=changed), strict=True):
        assert torch.equal(plain.video, same.video)


def test_a_damaged_clip_is_left_out_and_counted_on_demand(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    index = Index(dataset, "rgb")
    bad = batches(dataset)[1].key[2]
    read = ClipReader.read

    def damaged(self, row, numbers):
        if index.key(row) == bad:
            raise CorruptFrame(f"frame 3 of {bad} is damaged")
        return read(self, row, numbers)

    sound = batches(dataset)
    monkeypatch.setattr(ClipReader, "read", damaged)
    with pytest.raises(CorruptFrame):
        batches(dataset)
    loader = train_loader(
        dataset, "rgb", 4, steps=range(6), transform=TRANSFORM, options=LoaderOptions(skip_damaged=True)
    )
    left = 0
    for with_it, without in zip(sound, loader, strict=True):
        stays = [i for i, key in enumerate(with_it.key) if key != bad]
        left += len(with_it.key) - len(stays)
        assert without.key == [with_it.key[i] for i in stays]
        assert without.position == [with_it.position[i] for i in stays]
        assert torch.equal(without.video, with_it.video[stays])
    assert loader.skipped == left > 0


def test_streams_together_hold_the_same_clips(dataset: Dataset):
    both = list(paired_loader(dataset, ("rgb", "flow"), 4, steps=range(4), transform=TRANSFORM))
    alone = batches(dataset, "flow", steps=range(4))
    for pair, flow in zip(both, alone, strict=True):
        assert pair.video.keys() == {"rgb", "flow"}
        assert torch.equal(pair.video["flow"], flow.video)
        assert (pair.key, pair.position) == (flow.key, flow.position)
        assert pair.video["rgb"].shape == (4, 3, 16, 48, 48)
    # Where something moves, RGB changes: the two show the same moment and the same window.
    moving = torch.cat([pair.video["flow"].abs().amax(1)[:, :-1] > 0.1 for pair in both])
    change = torch.cat([pair.video["rgb"].diff(dim=2).abs().amax(1) for pair in both])
    assert change[moving].mean() > 4 * change[~moving].mean()


@pytest.mark.parametrize("wrong", [{"dtype": torch.int32}, {"threads": 0}, {"ahead": 0}])
def test_loader_options_without_sense_are_refused(wrong: dict):
    with pytest.raises(UsageError):
        LoaderOptions(**wrong)


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"resized_crop": 0.0}, {"resized_crop": 1.5}, {"color_jitter": 1.0}])
def test_a_transform_without_sense_is_refused(wrong: dict):
    with pytest.raises(UsageError):
        Transform(**wrong)
