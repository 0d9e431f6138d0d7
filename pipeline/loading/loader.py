"""An iterable of batches: clip order -> byte reads, ahead -> DALI -> tensors on the device.

loader = train_loader(open_dataset("data"), "rgb", batch_size=16, steps=range(1000))
for batch in loader:
    batch.video, batch.label, batch.key, batch.position
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali.pipeline import Pipeline

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import Clip, Order, Sampling, TrainOrder, UniformOrder, rank_slice, uniform_batches
from lgd.pipeline.loading.dali import build_pipeline
from lgd.pipeline.loading.reader import ClipReader, CorruptFrame, read_ahead
from lgd.pipeline.loading.transform import Part, Transform, jitter, window

READ_THREADS = 4
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Batch(NamedTuple):
    """video: N x C x T x H x W, channels last in memory, on the device. label: N int64, on the device.
    key: of each clip's video. position: of each clip in the clip order."""

    video: torch.Tensor
    label: torch.Tensor
    key: list[str]
    position: list[int]


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made and where they go: changes nothing in the clips themselves.

    device: where the tensors go; a CUDA device decodes on the GPU. dtype: float32, float16 or bfloat16 (which DALI
    does not write: it is converted from float32 on the device). threads: that decode. ahead: batches whose bytes are
    read before they are asked for; prefetch: batches that DALI is ahead of the one asked for.
    skip_damaged: leave a clip with a damaged frame out of its batch, instead of raising CorruptFrame."""

    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    threads: int = 1
    ahead: int = 3
    prefetch: int = 2
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"clips are float32, float16 or bfloat16, not {self.dtype}")
        if min(self.threads, self.ahead, self.prefetch) < 1:
            raise UsageError("threads, ahead and prefetch must be 1 or more")


class ClipLoader:
    """Batches of the clips at the positions given, each batch of frames of one size.

    part: of each frame. Mirroring and augmentation go with the part that the clip order draws, and with no other.
    data_wait_s: seconds spent waiting in `next`. skipped: clips left out so far because they are damaged."""

    def __init__(
        self,
        index: Index,
        order: Order,
        batches: Iterable[Sequence[int]],
        *,
        max_clips: int,
        transform: Transform,
        part: Part,
        options: LoaderOptions = LoaderOptions(),
    ):
        self.index, self.order, self.device = index, order, torch.device(options.device)
        self.stream = STREAMS[index.spec.stream]
        self.reader = ClipReader(index)
        self.data_wait_s, self.skipped = 0.0, 0
        self._transform, self._part, self._options = transform, part, options
        drawn = part == "drawn"
        self._jitter = bool(transform.color_jitter) and drawn and not self.stream.planes
        self._started: deque[list[Clip]] = deque()  # of batches inside DALI
        self._reads = read_ahead(self._plans(batches), self._read, READ_THREADS, depth=options.ahead)
        self._pipeline: Pipeline | None = build_pipeline(
            self.stream,
            transform,
            self._inputs,
            max_frames=max_clips * order.sampling.frames,
            device_id=(self.device.index or 0) if self.device.type == "cuda" else None,
            threads=options.threads,
            half=options.dtype == torch.float16,
            resize=transform.crop if drawn and transform.resized_crop is not None else None,
            jitter=self._jitter,
            prefetch=options.prefetch,
        )

    def _plans(self, batches: Iterable[Sequence[int]]) -> Iterator[tuple[list[Clip], list[tuple[int, np.ndarray]]]]:
        for positions in batches:
            clips = self.order.clips_at(positions)
            yield clips, [(clip.row, clip.frames) for clip in clips]

    def _read(self, row: int, numbers: np.ndarray) -> list[np.ndarray] | CorruptFrame:
        try:
            return self.reader.read(row, numbers)
        except CorruptFrame as error:
            return error

    def _inputs(self) -> tuple[Any, ...]:
        """What DALI is fed for the next batch: an entry a frame, see `build_pipeline`."""
        clips, reads = next(self._reads)
        sound = [(clip, read) for clip, read in zip(clips, reads, strict=True) if not isinstance(read, CorruptFrame)]
        for error in (read for read in reads if isinstance(read, CorruptFrame)):
            if not self._options.skip_damaged or not sound:
                raise error
            self.skipped += 1
            say(f"left out: {error}")
        self._started.append([clip for clip, _ in sound])
        planes = max(self.stream.planes, 1)
        widths = [int(self.index.widths[clip.row]) // planes for clip, _ in sound]
        windows = [
            window(self._transform, clip, int(self.index.heights[clip.row]), width=width, part=self._part)
            for (clip, _), width in zip(sound, widths, strict=True)
        ]
        mirrors = [clip.flip and self._transform.flip and self._part == "drawn" for clip, _ in sound]
        places = np.array(windows, np.int32)
        entries = [places[:, :2], places[:, 2:], np.array(mirrors, np.int32)]
        if self.stream.planes:
            entries.append(np.array(widths, np.int32))
        if self._jitter:
            entries.append(np.array([jitter(self._transform, clip) for clip, _ in sound], np.float32))
        jpegs = [frame for _, read in sound for frame in read]
        return jpegs, *(np.repeat(entry, self.order.sampling.frames, axis=0) for entry in entries)

    def __iter__(self) -> Iterator[Batch]:
        while self._pipeline is not None:
            start = time.perf_counter()
            try:
                (frames,) = self._pipeline.run()
            except StopIteration:
                self.close()
                return
            clips = self._started.popleft()
            video = torch.from_dlpack(frames.as_tensor())  # the batch is one block of memory: no copy
            video = video.view(len(clips), -1, *video.shape[1:]).permute(0, 4, 1, 2, 3).to(self._options.dtype)
            rows = [clip.row for clip in clips]
            label = torch.from_numpy(self.index.labels[rows].astype(np.int64)).to(self.device, non_blocking=True)
            self.data_wait_s += time.perf_counter() - start
            yield Batch(video, label, self.index.keys(rows), [clip.position for clip in clips])

    def close(self) -> None:
        """Stops the reading threads and lets DALI's memory go: it holds on to this loader, and this loader to it.

        A loader that was read to its end needs no closing."""
        self._reads.close()
        self._pipeline = None


def train_loader(
    dataset: Dataset,
    stream: str,
    batch_size: int,
    *,
    steps: Iterable[int],
    sampling: Sampling = Sampling(),
    transform: Transform = Transform(),
    split: str = "train",
    seed: int = 0,
    clips: int = 1,
    lengths: np.ndarray | None = None,
    rank: int = 0,
    workers: int = 1,
    options: LoaderOptions = LoaderOptions(),
) -> ClipLoader:
    """The share of worker `rank` of `workers` of each step's global batch: random crops, mirrored at random.

    clips: of every video in an epoch. lengths: frames of each video of the split that may be drawn; all by default.
    Raises UserError for a missing split and UsageError for frames that are smaller than the crop."""
    index = Index(dataset, stream)
    rows = index.rows(split)
    planes = max(STREAMS[stream].planes, 1)
    smallest = int(min(index.heights[rows].min(), (index.widths[rows] // planes).min()))
    if smallest < transform.crop and transform.resized_crop is None:
        raise UsageError(
            f"the crop of {transform.crop} pixels does not fit into frames of {smallest}: "
            f"preprocess with --short-side {transform.crop} or more, or train with a smaller --transform.crop"
        )
    order = TrainOrder(rows, index.lengths[rows] if lengths is None else lengths, sampling, seed=seed, clips=clips)
    batches = (rank_slice(step, batch_size, rank, workers=workers) for step in steps)
    return ClipLoader(
        index, order, batches, max_clips=-(-batch_size // workers), transform=transform, part="drawn", options=options
    )


def uniform_loader(
    dataset: Dataset,
    stream: str,
    clips: int,
    *,
    sampling: Sampling = Sampling(),
    transform: Transform = Transform(),
    split: str = "val",
    max_clips: int = 16,
    rank: int = 0,
    workers: int = 1,
    options: LoaderOptions = LoaderOptions(),
    crops: int = 1,
    index: Index | None = None,
) -> ClipLoader:
    """Uniform clips of the videos of worker `rank`, in order; the views of a video follow each other (`UniformOrder`).

    most_clips: in a batch. crops: one is the whole frame, more are squares along its longer side. index: of the
    stream, where it is open already. Raises UserError for a missing split."""
    index = Index(dataset, stream) if index is None else index
    rows = index.rows(split)
    order = UniformOrder(rows, index.lengths[rows], sampling, clips=clips, crops=crops)
    videos = rank_slice(0, len(rows), rank, workers=workers)
    positions = range(videos.start * order.views, videos.stop * order.views)
    sizes = index.widths.astype(np.int64) << 32 | index.heights
    batches = uniform_batches(order, positions, sizes, most=max_clips)
    return ClipLoader(
        index,
        order,
        batches,
        max_clips=max_clips,
        transform=transform,
        part="whole" if crops == 1 else "square",
        options=options,
    )
