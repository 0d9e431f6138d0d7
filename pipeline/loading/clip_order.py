"""The clip order: the pure function (seed, epoch, dataset, clips per video) -> which clip stands at a global position.

There is no reader state. At global step s with global batch G the samples are positions s*G .. s*G+G-1, cut evenly
over the workers that are there, so that a run restarted at any step with any number of workers goes on with the same
sequence. Random numbers are hashes (SplitMix64, Steele, Lea and Flood 2014) of seed, epoch and clip: they depend on
no library's generator and on nothing that was drawn before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lgd.pipeline.console.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make a clip."""

    frames: int = 16
    """Frames in a clip (T)."""
    stride: int = 1
    """Step from one frame of the clip to the next, in frames of the dataset."""
    segments: bool = False
    """Instead of consecutive frames: cut the video into T equal segments and take one frame of each (LGD-2D, TSN)."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1:
            raise UsageError(
                f"a clip needs at least 1 frame and a stride of at least 1, not {self.frames}, {self.stride}"
            )


class Clip(NamedTuple):
    """One clip: its global position, the row of its video in the index, the numbers of its T frames (int64, T), the
    place of the crop window as fractions of its free play (0 left or top, 1 right or bottom), the mirroring, and what
    augmentation beyond the paper draws, each from 0 to 1: area and aspect of a resized crop; brightness, contrast and
    saturation."""

    position: int
    row: int
    frames: np.ndarray
    crop_x: float
    crop_y: float
    flip: bool
    area: float = 0.5
    aspect: float = 0.5
    color: tuple[float, float, float] = (0.5, 0.5, 0.5)


class TrainOrder:
    """Every video of a split `clips` times an epoch, globally shuffled, with random start, crop and flip.

    rows: row numbers of the split in the index. lengths: frames of the video in each of those rows.
    A video shorter than the clip is looped."""

    def __init__(self, rows: np.ndarray, lengths: np.ndarray, sampling: Sampling, *, seed: int = 0, clips: int = 1):
        self.rows, self.lengths, self.sampling, self.seed, self.clips = rows, lengths, sampling, seed, clips
        self.epoch_length = len(rows) * clips
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        items = np.arange(self.epoch_length, dtype=np.uint64)
        return np.argsort(_hash(self.seed, np.uint64(epoch), _SHUFFLE, items=items), kind="stable")

    def clip(self, position: int) -> Clip:
        """The clip at a global position (from 0, without end)."""
        return self.clips_at([position])[0]

    def clips_at(self, positions: Sequence[int]) -> list[Clip]:
        """The clips at global positions: what `clip` gives for each, at less cost."""
        at = np.asarray(positions, np.int64)
        epochs, within = np.divmod(at, self.epoch_length)
        items = np.array([self._permutation(int(epoch))[w] for epoch, w in zip(epochs, within, strict=True)])
        videos = items // self.clips
        lengths = self.lengths[videos].astype(np.int64)

        def draw(purpose: int, count: int = 1) -> np.ndarray:
            """N x count, uniform in [0, 1)."""
            first = (items * _DRAWS).astype(np.uint64)[:, None]
            draws = _hash(
                self.seed, epochs.astype(np.uint64)[:, None], purpose, items=first + np.arange(count, dtype=np.uint64)
            )
            return (draws >> np.uint64(11)) * 2.0**-53

        sampling = self.sampling
        if sampling.segments:
            frames = _segments(lengths[:, None], sampling.frames, draw(_START, sampling.frames))
        else:
            free = np.maximum(lengths - _span(sampling), 0)
            starts = (draw(_START)[:, 0] * (free + 1)).astype(np.int64)
            frames = _consecutive(lengths[:, None], starts[:, None], sampling)
        crop, flip, resize, color = draw(_CROP, 2), draw(_FLIP)[:, 0] < 0.5, draw(_RESIZE, 2), draw(_COLOR, 3)
        numbers = (at, self.rows[videos], crop[:, 0], crop[:, 1], flip, resize[:, 0], resize[:, 1])
        return [
            Clip(position, row, frames[i], x, y, mirrored, area, aspect, tuple(colors))
            for i, (position, row, x, y, mirrored, area, aspect, colors) in enumerate(
                zip(*(column.tolist() for column in numbers), color.tolist(), strict=True)
            )
        ]


class UniformOrder:
    """The views of every video in testing: `clips` uniform clips, each seen through `crops` windows, in order.

    The views of video v are the positions v*views .. v*views+views-1, views = clips*crops: the first clip's crops, then
    the second's. One crop is the whole frame; several are squares along its longer side, the first and the last at its
    ends (`transform.window`). Never mirrored. One clip is the middle of its video; several reach from its first to its
    last frame."""

    def __init__(
        self, rows: np.ndarray, lengths: np.ndarray, sampling: Sampling, *, clips: int = 15, crops: int = 1
    ) -> None:
        self.rows, self.lengths, self.sampling, self.clips, self.crops = rows, lengths, sampling, clips, crops
        self.views = clips * crops
        self.epoch_length = len(rows) * self.views

    def clip(self, position: int) -> Clip:
        """The clip at a position from 0 to epoch_length - 1."""
        video, view = divmod(int(position), self.views)
        number, crop = divmod(view, self.crops)
        length = int(self.lengths[video])
        if self.sampling.segments:
            inside = np.full(self.sampling.frames, (number + 0.5) / self.clips)
            frames = _segments(length, self.sampling.frames, inside)
        else:
            free = max(length - _span(self.sampling), 0)
            start = free // 2 if self.clips == 1 else (2 * number * free + self.clips - 1) // (2 * (self.clips - 1))
            frames = _consecutive(length, start, self.sampling)
        place = crop / (self.crops - 1) if self.crops > 1 else 0.5
        return Clip(int(position), int(self.rows[video]), frames, place, place, False)

    def clips_at(self, positions: Sequence[int]) -> list[Clip]:
        """The clips at positions."""
        return [self.clip(position) for position in positions]


Order = TrainOrder | UniformOrder


def rank_slice(step: int, batch: int, rank: int, *, workers: int) -> range:
    """The global positions that worker `rank` of `workers` serves at a step: its even cut of the global batch."""
    first = step * batch
    return range(first + batch * rank // workers, first + batch * (rank + 1) // workers)


def evenly(total: int, count: int) -> np.ndarray:
    """The middles of `count` equal parts of 0 .. total - 1, int64; all numbers where there are not so many."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)


def uniform_batches(order: UniformOrder, positions: Sequence[int], size: np.ndarray, *, most: int) -> list[list[int]]:
    """Cuts positions into batches of at most `most` clips whose videos have frames of one size.

    size: a number for each row of the index that is equal where the frame sizes are."""
    batches: list[list[int]] = []
    last = None
    for position in positions:
        this = size[order.rows[position // order.views]]
        if batches and this == last and len(batches[-1]) < most:
            batches[-1].append(position)
        else:
            batches.append([position])
        last = this
    return batches


_SHUFFLE, _START, _CROP, _FLIP, _RESIZE, _COLOR = range(6)  # what a random number is for
_DRAWS = 1 << 12  # random numbers that one clip may draw for one purpose


def _span(sampling: Sampling) -> int:
    return (sampling.frames - 1) * sampling.stride + 1


def _consecutive(length: int | np.ndarray, start: int | np.ndarray, sampling: Sampling) -> np.ndarray:
    return (start + np.arange(sampling.frames) * sampling.stride) % length


def _segments(length: int | np.ndarray, segments: int, inside: np.ndarray) -> np.ndarray:
    """A frame in each of equal segments, at fraction `inside` of it."""
    return np.minimum(((np.arange(segments) + inside) * length / segments).astype(np.int64), length - 1)


def _hash(seed: int, epoch: np.ndarray | np.uint64, purpose: int, *, items: np.ndarray) -> np.ndarray:
    """64 random bits (uint64) for each item (uint64). epoch: one for all of them, or to be broadcast with them."""
    with np.errstate(over="ignore"):
        state = _mix(_mix(np.array([seed % (1 << 64)], np.uint64)) ^ epoch)
        return _mix(_mix(state ^ np.uint64(purpose)) ^ items)


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
