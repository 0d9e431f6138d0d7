"""The clip order: the pure function (seed, epoch, keys of the split, clips per video) -> the clip at a global position.

There is no reader state. At global step s with global batch size G the samples are positions s*G .. s*G+G-1, divided
evenly over the current workers, so that a run restarted at any step with any number of workers continues the same
sequence. Random numbers are hashes (SplitMix64; Steele, Lea and Flood 2014) of seed, epoch and clip: they do not depend
on the generator of a library or on earlier random numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lgd.pipeline.console.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video form a clip."""

    frames: int = 16
    """Frames in a clip (T)."""
    stride: int = 1
    """Step from one frame of the clip to the next, in frames of the dataset."""
    segments: bool = False
    """Instead of consecutive frames: split the video into T equal segments and take one frame of each (LGD-2D, TSN)."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1:
            raise UsageError(
                f"a clip needs at least 1 frame and a stride of at least 1, not {self.frames} and {self.stride}"
            )


class Clip(NamedTuple):
    """One clip."""

    position: int
    """In the clip order (global)."""
    row: int
    """Of the video, in the index."""
    frames: np.ndarray
    """Numbers of the T frames: int64, T."""
    crop_x: float
    """Horizontal place of the crop window: 0 at the left edge of the frame, 1 at the right edge."""
    crop_y: float
    """Vertical place of the crop window: 0 at the top of the frame, 1 at the bottom."""
    flip: bool
    """Whether the clip is mirrored."""
    area: float = 0.5
    """Random number from 0 to 1 for the area of a resized crop."""
    aspect: float = 0.5
    """Random number from 0 to 1 for the aspect ratio of a resized crop."""
    color: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Random numbers from 0 to 1 for brightness, contrast and saturation."""


class TrainOrder:
    """Training clips: every video of a split `clips` times per epoch, globally shuffled, with random start, crop and
    flip.

    rows: row numbers of the split in the index. lengths: number of frames of the video in each of these rows.
    A video shorter than the clip is looped."""

    def __init__(self, rows: np.ndarray, lengths: np.ndarray, sampling: Sampling, *, seed: int = 0, clips: int = 1):
        self.rows, self.lengths, self.sampling, self.seed, self.clips = rows, lengths, sampling, seed, clips
        self.epoch_length = len(rows) * clips
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        items = np.arange(self.epoch_length, dtype=np.uint64)
        return np.argsort(_hash(self.seed, np.uint64(epoch), _SHUFFLE, items=items), kind="stable")

    def clip(self, position: int) -> Clip:
        """Return the clip at a global position (from 0, without an upper limit)."""
        return self.clips_at([position])[0]

    def clips_at(self, positions: Sequence[int]) -> list[Clip]:
        """Return the clips at global positions: the same as `clip` for each position, but faster."""
        numbers = np.asarray(positions, np.int64)
        epochs, places = np.divmod(numbers, self.epoch_length)
        items = np.array([self._permutation(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)])
        videos = items // self.clips
        lengths = self.lengths[videos].astype(np.int64)

        def draw(purpose: int, count: int = 1) -> np.ndarray:
            """Return random numbers, N x count, uniform in [0, 1)."""
            first = (items * _DRAWS).astype(np.uint64)[:, None]
            draws = _hash(
                self.seed, epochs.astype(np.uint64)[:, None], purpose, items=first + np.arange(count, dtype=np.uint64)
            )
            return (draws >> np.uint64(11)) * 2.0**-53

        sampling = self.sampling
        if sampling.segments:
            frames = _segments(lengths[:, None], sampling.frames, draw(_START, sampling.frames))
        else:
            last_start = np.maximum(lengths - _span(sampling), 0)
            starts = (draw(_START)[:, 0] * (last_start + 1)).astype(np.int64)
            frames = _consecutive(lengths[:, None], starts[:, None], sampling)
        crop, flip, resize, color = draw(_CROP, 2), draw(_FLIP)[:, 0] < 0.5, draw(_RESIZE, 2), draw(_COLOR, 3)
        columns = (numbers, self.rows[videos], crop[:, 0], crop[:, 1], flip, resize[:, 0], resize[:, 1])
        return [
            Clip(position, row, frames[i], x, y, mirrored, area, aspect, tuple(colors))
            for i, (position, row, x, y, mirrored, area, aspect, colors) in enumerate(
                zip(*(column.tolist() for column in columns), color.tolist(), strict=True)
            )
        ]


class UniformOrder:
    """The views of every video in testing: `clips` uniform clips, each with `crops` crop windows, in order.

    The views of video v are the positions v*views .. v*views+views-1, where views = clips*crops: the crops of the first
    clip, then those of the second. One crop is the full frame; several are squares along its longer side, the first and
    the last at the ends of that side (`transform.crop_window`). Clips are never mirrored. One clip is the middle of its
    video; several reach from its first to its last frame."""

    def __init__(
        self, rows: np.ndarray, lengths: np.ndarray, sampling: Sampling, *, clips: int = 15, crops: int = 1
    ) -> None:
        self.rows, self.lengths, self.sampling, self.clips, self.crops = rows, lengths, sampling, clips, crops
        self.views = clips * crops
        self.epoch_length = len(rows) * self.views

    def clip(self, position: int) -> Clip:
        """Return the clip at a position from 0 to epoch_length - 1."""
        video, view = divmod(int(position), self.views)
        number, crop = divmod(view, self.crops)
        length = int(self.lengths[video])
        if self.sampling.segments:
            fraction = np.full(self.sampling.frames, (number + 0.5) / self.clips)
            frames = _segments(length, self.sampling.frames, fraction)
        else:
            last_start = max(length - _span(self.sampling), 0)
            if self.clips == 1:
                start = last_start // 2
            else:
                start = (2 * number * last_start + self.clips - 1) // (2 * (self.clips - 1))
            frames = _consecutive(length, start, self.sampling)
        place = crop / (self.crops - 1) if self.crops > 1 else 0.5
        return Clip(int(position), int(self.rows[video]), frames, place, place, False)

    def clips_at(self, positions: Sequence[int]) -> list[Clip]:
        """Return the clips at these positions."""
        return [self.clip(position) for position in positions]


Order = TrainOrder | UniformOrder


def rank_slice(step: int, batch_size: int, rank: int, *, workers: int, group: int = 0) -> range:
    """Return the global positions that worker `rank` of `workers` loads at a step: its slice of the global batch.

    The slices of all workers differ in size by at most one. group: clips of a normalization group; slices then start
    where a group starts if the largest slice does not grow by that, and may differ in size by more."""
    bounds = _slice_bounds(batch_size, workers, group)
    return range(step * batch_size + bounds[rank], step * batch_size + bounds[rank + 1])


@lru_cache(maxsize=16)
def _slice_bounds(batch_size: int, workers: int, group: int) -> tuple[int, ...]:
    """Return where the slices of the workers start in the global batch, and its end."""
    even = [batch_size * rank // workers for rank in range(workers + 1)]
    if not group or batch_size < workers:
        return tuple(even)
    largest = -(-batch_size // workers)
    bounds = [0]
    for rank in range(1, workers):
        low = max(bounds[-1] + 1, batch_size - (workers - rank) * largest)
        high = min(bounds[-1] + largest, batch_size - (workers - rank))
        starts = range(-(-low // group) * group, high + 1, group)
        nearest = min(starts, key=lambda start: abs(start - even[rank]), default=even[rank])
        bounds.append(min(max(nearest, low), high))
    return (*bounds, batch_size)


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return the middles of `count` equal parts of 0 .. total - 1, int64; all numbers if total is at most count."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)


def uniform_batches(
    order: UniformOrder, positions: Sequence[int], frame_sizes: np.ndarray, *, max_clips: int | np.ndarray
) -> list[list[int]]:
    """Split positions into batches of at most `max_clips` clips whose videos have the same frame size.

    frame_sizes: one number per row of the index; equal numbers mean equal frame sizes. max_clips: one number, or one
    per row of the index, equal for equal frame sizes."""
    maximum = np.broadcast_to(max_clips, frame_sizes.shape)
    batches: list[list[int]] = []
    previous = None
    for position in positions:
        row = order.rows[position // order.views]
        frame_size = frame_sizes[row]
        if batches and frame_size == previous and len(batches[-1]) < maximum[row]:
            batches[-1].append(position)
        else:
            batches.append([position])
        previous = frame_size
    return batches


_SHUFFLE, _START, _CROP, _FLIP, _RESIZE, _COLOR = range(6)  # purposes of random numbers
_DRAWS = 1 << 12  # maximum random numbers per clip and purpose


def _span(sampling: Sampling) -> int:
    return (sampling.frames - 1) * sampling.stride + 1


def _consecutive(length: int | np.ndarray, start: int | np.ndarray, sampling: Sampling) -> np.ndarray:
    frames: np.ndarray = (start + np.arange(sampling.frames) * sampling.stride) % length
    return frames


def _segments(length: int | np.ndarray, segments: int, fraction: np.ndarray) -> np.ndarray:
    """Return the number of one frame in each of the equal segments, at a fraction (0 to 1) of the segment."""
    frames: np.ndarray = np.minimum(((np.arange(segments) + fraction) * length / segments).astype(np.int64), length - 1)
    return frames


def _hash(seed: int, epoch: np.ndarray | np.uint64, purpose: int, *, items: np.ndarray) -> np.ndarray:
    """Return 64 random bits (uint64) for each item (uint64). epoch: number, or array that broadcasts with items."""
    with np.errstate(over="ignore"):
        state = _mix(_mix(np.array([seed % (1 << 64)], np.uint64)) ^ epoch)
        return _mix(_mix(state ^ np.uint64(purpose)) ^ items)


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
