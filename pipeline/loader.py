"""An iterable of batches: clip order -> byte reads, ahead -> DALI -> tensors on the device.

loader = train_loader(open_dataset("data"), "rgb", batch=16, steps=range(1000))
for batch in loader:
    batch.video, batch.label, batch.key, batch.position
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from pipeline.cache import ShardCache
from pipeline.dali import build_pipeline
from pipeline.dataset import STREAMS, Dataset
from pipeline.errors import UsageError
from pipeline.index import Index
from pipeline.order import Order, Sampling, TrainOrder, UniformOrder, share, uniform_batches
from pipeline.reader import ClipReader, read_ahead
from pipeline.transform import Transform


class Batch(NamedTuple):
    """video: N x C x T x H x W float32, channels last in memory, on the device. label: N int64, on the device.
    key: of each clip's video. position: of each clip in the clip order."""

    video: torch.Tensor
    label: torch.Tensor
    key: list[str]
    position: list[int]


class ClipLoader:
    """Batches of the clips at the positions given, each batch of frames of one size.

    crop: side of the square crop window in pixels, placed as the clip order says; None for whole frames.
    device: where the tensors go; a CUDA device decodes on the GPU. data_wait_s: seconds spent waiting in `next`."""

    def __init__(
        self,
        index: Index,
        order: Order,
        batches: Iterable[Sequence[int]],
        most_clips: int,
        transform: Transform,
        crop: int | None,
        device: torch.device | str = "cpu",
        threads: int = 1,
        ahead: int = 3,
        cache: ShardCache | None = None,
    ):
        self.index, self.order, self.device = index, order, torch.device(device)
        self.stream = STREAMS[index.recipe.stream]
        self.reader = ClipReader(index, cache)
        self.data_wait_s = 0.0
        self._crop, self._flip = crop, transform.flip
        self._started: deque[tuple[list[int], list[int]]] = deque()  # positions and rows of batches inside DALI
        self._reads = read_ahead(self._plans(batches), self.reader, threads=4, depth=ahead)
        self._pipeline = build_pipeline(
            self.stream,
            transform,
            self._frames(),
            most_frames=most_clips * order.sampling.frames,
            device_id=(self.device.index or 0) if self.device.type == "cuda" else None,
            threads=threads,
        )

    def _plans(self, batches: Iterable[Sequence[int]]) -> Iterator:
        for positions in batches:
            clips = [self.order.clip(position) for position in positions]
            yield clips, [(clip.row, clip.frames) for clip in clips]

    def _frames(self) -> Iterator[tuple[list[np.ndarray], ...]]:
        """What DALI is fed: an entry a frame."""
        for clips, jpegs in self._reads:
            self._started.append(([clip.position for clip in clips], [clip.row for clip in clips]))
            anchors, shapes, mirrors = [], [], []
            for clip in clips:
                height = int(self.index.heights[clip.row])
                width = int(self.index.widths[clip.row]) // max(self.stream.planes, 1)
                size = (height, width) if self._crop is None else (self._crop, self._crop)
                # The free play has width - crop + 1 places, each equally likely.
                top = min(int(clip.crop_y * (height - size[0] + 1)), height - size[0])
                left = min(int(clip.crop_x * (width - size[1] + 1)), width - size[1])
                anchors.append(np.array([top, left], np.int32))
                shapes.append(np.array(size, np.int32))
                mirrors.append(np.array(clip.flip and self._flip, np.int32))
            frames = self.order.sampling.frames
            repeated = [[entry for entry in entries for _ in range(frames)] for entries in (anchors, shapes, mirrors)]
            yield [frame for clip in jpegs for frame in clip], *repeated

    def __iter__(self) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            try:
                (frames,) = self._pipeline.run()
            except StopIteration:
                return
            positions, rows = self._started.popleft()
            video = torch.from_dlpack(frames.as_tensor())  # the batch is one block of memory: no copy
            video = video.view(len(positions), -1, *video.shape[1:]).permute(0, 4, 1, 2, 3)
            label = torch.from_numpy(self.index.labels[rows].astype(np.int64)).to(self.device, non_blocking=True)
            self.data_wait_s += time.perf_counter() - start
            yield Batch(video, label, self.index.keys(rows), positions)

    def close(self) -> None:
        """Stops the reading threads. A loader that was read to its end needs no closing."""
        self._reads.close()


def train_loader(
    dataset: Dataset,
    stream: str,
    batch: int,
    steps: Iterable[int],
    sampling: Sampling = Sampling(),
    transform: Transform = Transform(),
    split: str = "train",
    seed: int = 0,
    rank: int = 0,
    workers: int = 1,
    device: torch.device | str = "cpu",
    threads: int = 1,
    cache: ShardCache | None = None,
) -> ClipLoader:
    """The share of worker `rank` of `workers` of each step's global batch: random crops, mirrored at random.

    Raises UserError for a missing split and UsageError for frames that are smaller than the crop."""
    index = Index(dataset, stream, cache)
    rows = index.rows(split)
    planes = max(STREAMS[stream].planes, 1)
    smallest = int(min(index.heights[rows].min(), (index.widths[rows] // planes).min()))
    if smallest < transform.crop:
        raise UsageError(
            f"the crop of {transform.crop} pixels does not fit into frames of {smallest}: "
            f"preprocess with --short-side {transform.crop} or more, or train with a smaller --transform.crop"
        )
    order = TrainOrder(rows, index.lengths[rows], sampling, seed)
    return ClipLoader(
        index,
        order,
        (share(step, batch, rank, workers) for step in steps),
        most_clips=-(-batch // workers),
        transform=transform,
        crop=transform.crop,
        device=device,
        threads=threads,
        cache=cache,
    )


def uniform_loader(
    dataset: Dataset,
    stream: str,
    clips: int,
    sampling: Sampling = Sampling(),
    transform: Transform = Transform(),
    split: str = "val",
    most_clips: int = 16,
    rank: int = 0,
    workers: int = 1,
    device: torch.device | str = "cpu",
    threads: int = 1,
    cache: ShardCache | None = None,
) -> ClipLoader:
    """Uniform clips of whole frames of the videos of worker `rank`, in order; the clips of a video follow each other.

    most_clips: in a batch. Raises UserError for a missing split."""
    index = Index(dataset, stream, cache)
    rows = index.rows(split)
    order = UniformOrder(rows, index.lengths[rows], sampling, clips)
    videos = share(0, len(rows), rank, workers)
    positions = range(videos.start * clips, videos.stop * clips)
    sizes = index.widths.astype(np.int64) << 32 | index.heights
    return ClipLoader(
        index,
        order,
        uniform_batches(order, positions, sizes, most_clips),
        most_clips=most_clips,
        transform=transform,
        crop=None,
        device=device,
        threads=threads,
        cache=cache,
    )
