import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import (
    Sampling,
    TrainOrder,
    UniformOrder,
    evenly_spaced,
    rank_slice,
    uniform_batches,
)


def order(videos: int = 7, length: int = 40, seed: int = 3, clips: int = 1, sampling: Sampling = Sampling()):
    return TrainOrder(np.arange(100, 100 + videos), np.full(videos, length), sampling, seed=seed, clips=clips)


@given(
    batch=st.integers(4, 40),
    restarts=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=6),
)
def test_every_position_is_loaded_exactly_once_with_any_workers_and_restarts(
    batch: int, restarts: list[tuple[int, int]]
):
    """restarts: (workers, steps until the next restart)."""
    loaded: list[int] = []
    step = 0
    for workers, steps in restarts:
        for _ in range(steps):
            for rank in range(workers):
                loaded += rank_slice(step, batch, rank, workers=workers)
            step += 1
    assert loaded == list(range(step * batch))


@given(batch=st.integers(1, 1000), workers=st.integers(1, 64), step=st.integers(0, 10**9))
def test_slices_of_workers_differ_in_size_by_at_most_one(batch: int, workers: int, step: int):
    sizes = [len(rank_slice(step, batch, rank, workers=workers)) for rank in range(workers)]
    assert max(sizes) - min(sizes) <= 1


@given(batch=st.integers(1, 200), workers=st.integers(1, 64), group=st.integers(1, 64))
def test_slices_along_normalization_groups_are_complete_and_never_larger(batch: int, workers: int, group: int):
    workers = min(workers, batch)
    slices = [rank_slice(2, batch, rank, workers=workers, group=group) for rank in range(workers)]
    assert [position for part in slices for position in part] == list(range(2 * batch, 3 * batch))
    assert all(slices)
    assert max(map(len, slices)) == -(-batch // workers)


def test_slices_start_where_a_group_starts_if_that_costs_no_balance():
    def starts(batch: int, workers: int, group: int) -> list[int]:
        return [rank_slice(0, batch, rank, workers=workers, group=group).start for rank in range(workers)]

    assert starts(64, 4, 16) == [0, 16, 32, 48]
    assert starts(7, 3, 2) == [0, 2, 4]
    assert starts(7, 2, 4) == [0, 4]
    assert starts(16, 3, 8) == [0, 5, 10]  # one worker would have 8 clips, another none
    assert starts(16, 3, 0) == [0, 5, 10]


@settings(deadline=None)
@given(videos=st.integers(1, 50), clips=st.integers(1, 3), epoch=st.integers(0, 5), seed=st.integers(-5, 5))
def test_every_video_is_drawn_equally_often_in_an_epoch(videos: int, clips: int, epoch: int, seed: int):
    this = order(videos, seed=seed, clips=clips)
    rows = [this.clip(p).row for p in range(epoch * videos * clips, (epoch + 1) * videos * clips)]
    assert sorted(rows) == sorted(list(range(100, 100 + videos)) * clips)


def test_epochs_and_seeds_are_shuffled_differently():
    def rows(seed: int, epoch: int) -> list[int]:
        return [order(50, seed=seed).clip(epoch * 50 + i).row for i in range(50)]

    assert len({tuple(rows(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9
    assert rows(0, 0) != sorted(rows(0, 0))


def test_a_clip_depends_only_on_its_position():
    forward = [order().clip(p) for p in range(60)]
    backward = [order().clip(p) for p in reversed(range(60))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert a._replace(frames=None) == b._replace(frames=None)
        assert (a.frames == b.frames).all()


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    """If one of these numbers changes, runs cannot be resumed: that needs a new version of the checkpoint format."""
    clips = [order(1000, length=300).clip(p) for p in (0, 1, 999, 1000, 123456789)]
    assert [clip.row for clip in clips] == EXPECTED_ROWS
    assert [int(clip.frames[0]) for clip in clips] == EXPECTED_STARTS
    assert [clip.flip for clip in clips] == EXPECTED_FLIPS


EXPECTED_ROWS = [290, 957, 377, 640, 717]
EXPECTED_STARTS = [165, 113, 49, 201, 195]
EXPECTED_FLIPS = [True, True, True, False, False]


def test_starts_crops_and_flips_are_uniform():
    this = order(4000, length=16 + 9)
    clips = [this.clip(p) for p in range(4000)]
    starts = np.bincount([clip.frames[0] for clip in clips], minlength=10)
    assert len(starts) == 10
    # 400 expected, standard deviation 19
    assert np.abs(starts - 400).max() < 5 * 19
    for values in ([c.crop_x for c in clips], [c.crop_y for c in clips]):
        assert abs(np.mean(values) - 0.5) < 5 / np.sqrt(12 * 4000)
        assert 0 <= min(values) < 0.01
        assert 0.99 < max(values) < 1
    assert abs(np.mean([c.flip for c in clips]) - 0.5) < 5 * 0.5 / np.sqrt(4000)
    x, y, flip = (np.array([getattr(c, n) for c in clips], float) for n in ("crop_x", "crop_y", "flip"))
    assert np.abs(np.corrcoef([x, y, flip]) - np.eye(3)).max() < 5 / np.sqrt(4000)


@given(length=st.integers(1, 200), frames=st.integers(1, 64), stride=st.integers(1, 4), position=st.integers(0, 99))
def test_training_frames_are_consecutive_and_inside_the_video(length: int, frames: int, stride: int, position: int):
    this = order(length=length, sampling=Sampling(frames, stride))
    numbers = this.clip(position).frames
    assert len(numbers) == frames
    assert ((numbers >= 0) & (numbers < length)).all()
    assert (np.diff(numbers) % length == stride % length).all()
    if length >= (frames - 1) * stride + 1:
        assert (np.diff(numbers) == stride).all()


@given(length=st.integers(3, 300), segments=st.integers(1, 3), position=st.integers(0, 99))
def test_each_segment_gives_one_frame(length: int, segments: int, position: int):
    sampling = Sampling(segments, segments=True)
    for this in (
        order(length=length, sampling=sampling),
        UniformOrder(np.arange(9), np.full(9, length), sampling, clips=12),
    ):
        numbers = this.clip(position).frames
        edges = np.arange(segments + 1) * length / segments
        assert (numbers >= np.floor(edges[:-1])).all()
        assert (numbers < np.ceil(edges[1:])).all()


def test_uniform_clips_reach_from_the_first_to_the_last_frame_in_order():
    this = UniformOrder(np.array([5, 9]), np.array([100, 16]), Sampling(16), clips=15)
    starts = [int(this.clip(p).frames[0]) for p in range(15)]
    assert starts == [6 * i for i in range(15)]  # 84 free frames in 14 steps
    assert [this.clip(p).row for p in range(30)] == [5] * 15 + [9] * 15
    assert {tuple(this.clip(p).frames) for p in range(15, 30)} == {tuple(range(16))}
    assert not any(this.clip(p).flip for p in range(30))
    assert int(UniformOrder(np.array([0]), np.array([100]), Sampling(16), clips=1).clip(0).frames[0]) == 42


def test_the_views_of_a_video_are_its_clips_and_of_each_clip_its_crops():
    one, three = (UniformOrder(np.arange(5, 8), np.full(3, 50), Sampling(16), clips=4, crops=crops) for crops in (1, 3))
    assert (three.views, three.epoch_length) == (12, 36)
    for position, clip in enumerate(three.clips_at(range(36))):
        single = one.clip(position // 3)
        assert (clip.position, clip.row, clip.flip) == (position, single.row, False)
        assert (clip.frames == single.frames).all()
        assert clip.crop_x == clip.crop_y == (0, 0.5, 1)[position % 3]
    batches = uniform_batches(three, range(36), np.array([0] * 5 + [1, 2, 2]), max_clips=10)
    assert [len(batch) for batch in batches] == [10, 2, 10, 10, 4]


def test_uniform_batches_have_one_frame_size_and_at_most_max_clips():
    this = UniformOrder(np.arange(5), np.full(5, 50), Sampling(16), clips=3)
    sizes = np.array([1, 1, 1, 2, 1])
    batches = uniform_batches(this, range(15), sizes, max_clips=4)
    assert [p for batch in batches for p in batch] == list(range(15))
    assert [len(batch) for batch in batches] == [4, 4, 1, 3, 3]


def test_uniform_batches_may_have_a_maximum_for_each_video():
    this = UniformOrder(np.array([0, 2, 1]), np.full(3, 50), Sampling(16), clips=3)
    batches = uniform_batches(this, range(9), np.array([7, 8, 8]), max_clips=np.array([4, 1, 1]))
    assert [len(batch) for batch in batches] == [3, 1, 1, 1, 1, 1, 1]


def test_a_million_videos_need_8_bytes_each():
    this = order(1_000_000)
    assert len({this.clip(p).row for p in range(0, 1_000_000, 999)}) == 1002
    assert this._permutation(0).nbytes <= 8 * 1_000_000


@pytest.mark.parametrize(("frames", "stride"), [(0, 1), (16, 0)])
def test_a_clip_without_frames_is_refused(frames: int, stride: int):
    with pytest.raises(UsageError):
        Sampling(frames, stride)


def test_numbers_are_evenly_spaced_and_distinct():
    assert evenly_spaced(9, 4).tolist() == [1, 3, 5, 7]
    assert evenly_spaced(3, 16).tolist() == [0, 1, 2]
    assert evenly_spaced(1000, 2).tolist() == [250, 750]
    assert evenly_spaced(0, 4).tolist() == []
