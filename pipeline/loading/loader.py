"""Iterables of batches: clip order -> byte reads in advance -> DALI -> tensors on the device.

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
from lgd.pipeline.loading.frame_inputs import FrameInputs, frame_inputs
from lgd.pipeline.loading.hand_over import create_hand_over
from lgd.pipeline.loading.reader import ClipReader, CorruptFrame, read_ahead
from lgd.pipeline.loading.transform import MAX_ASPECT, CropMode, Transform

READ_THREADS = 4
MAX_DECODING_THREADS = 8  # of a training worker
WIDE = 3.0  # aspect ratio: batches of wider full frames have fewer clips
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Batch(NamedTuple):
    """N clips and their labels."""

    video: torch.Tensor
    """N x C x T x H x W, channels last in memory, on the device."""
    label: torch.Tensor
    """N, int64, on the device; UNLABELLED (-1) for a video without a label."""
    key: list[str]
    """Of the video of each clip."""
    position: list[int]
    """Of each clip in the clip order."""


@dataclass(frozen=True)
class LoaderOptions:
    """Device, number type and buffering of a loader. The clips are the same with all options."""

    device: torch.device | str = "cpu"
    """Device of the tensors; a CUDA device also decodes."""
    dtype: torch.dtype = torch.float32
    """float32, float16 or bfloat16 (DALI does not write bfloat16: it is converted from float32 on the device, on a GPU
    by the copy that is made anyway)."""
    threads: int = 1
    """Threads that decode. On a GPU, they do the work on the host for all frames, and decode a part of the frames of
    those that the hardware decoder does not get."""
    hw_decoder_load: float | None = None
    """Share of the frames that the hardware decoder of a GPU decodes, 0 to 1; a GPU without one ignores it. Default:
    0.65 with 4 threads or more, 0.9 with fewer: each of the other frames takes about 0.1 ms of a thread."""
    read_ahead: int = 3
    """Batches whose bytes are read in advance."""
    prefetch: int = 2
    """Batches that DALI decodes in advance."""
    skip_damaged: bool = False
    """Leave a clip with a damaged frame out of its batch, instead of raising CorruptFrame."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype must be float32, float16 or bfloat16, not {self.dtype}")
        if min(self.threads, self.read_ahead, self.prefetch) < 1:
            raise UsageError("threads, read_ahead and prefetch must be at least 1")
        if self.hw_decoder_load is not None and not 0 <= self.hw_decoder_load <= 1:
            raise UsageError(f"hw_decoder_load must be a share of the frames (0 to 1), not {self.hw_decoder_load}")


class ClipLoader:
    """Iterable of batches of the clips at given positions; all frames of a batch have one size.

    crop_mode: see `crop_window`; clips are mirrored and augmented only in the mode `random`.
    data_wait_s: seconds spent waiting in `next`. skipped: number of damaged clips left out so far."""

    def __init__(
        self,
        index: Index,
        order: Order,
        batches: Iterable[Sequence[int]],
        *,
        max_clips: int,
        transform: Transform,
        crop_mode: CropMode,
        options: LoaderOptions = LoaderOptions(),
    ):
        self.index, self.order, self.device = index, order, torch.device(options.device)
        self.stream = STREAMS[index.spec.stream]
        self.reader = ClipReader(index)
        self.data_wait_s, self.skipped = 0.0, 0
        self._transform, self._crop_mode, self._options = transform, crop_mode, options
        random_crop = crop_mode == "random"
        # Clips and inputs of the batches inside DALI, which reads the inputs where they are.
        self._started: deque[tuple[list[Clip], FrameInputs[Any]]] = deque()
        self._hand_over = create_hand_over(self.device)
        self._reads = read_ahead(self._plans(batches), self._read, READ_THREADS, depth=options.read_ahead)
        self._pipeline: Pipeline | None = build_pipeline(
            self.stream,
            transform,
            self._inputs,
            max_frames=max_clips * order.sampling.frames,
            device_id=(self.device.index or 0) if self.device.type == "cuda" else None,
            threads=options.threads,
            half=options.dtype == torch.float16,
            resize=transform.crop if random_crop and transform.resized_crop is not None else None,
            jitter=random_crop and transform.color_jitter > 0 and not self.stream.planes,
            prefetch=options.prefetch,
            hw_decoder_load=options.hw_decoder_load,
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

    def _inputs(self) -> FrameInputs[Any]:
        """Return the inputs of DALI for the next batch."""
        clips, reads = next(self._reads)
        valid = [(clip, read) for clip, read in zip(clips, reads, strict=True) if not isinstance(read, CorruptFrame)]
        for error in (read for read in reads if isinstance(read, CorruptFrame)):
            if not self._options.skip_damaged or not valid:
                raise error
            self.skipped += 1
            say(f"skipped a damaged clip: {error}")
        valid_clips = [clip for clip, _ in valid]
        jpegs = [read for _, read in valid]
        inputs = frame_inputs(self.index, valid_clips, jpegs, transform=self._transform, crop_mode=self._crop_mode)
        self._started.append((valid_clips, inputs))
        return inputs

    def __iter__(self) -> Iterator[Batch]:
        while self._pipeline is not None:
            start = time.perf_counter()
            try:
                (frames,) = self._pipeline.run()
            except StopIteration:
                self.close()
                return
            clips, _ = self._started.popleft()
            pictures = self._hand_over.tensor(frames, self._options.dtype)
            del frames
            video = pictures.view(len(clips), -1, *pictures.shape[1:]).permute(0, 4, 1, 2, 3)
            rows = [clip.row for clip in clips]
            label = torch.from_numpy(self.index.labels[rows].astype(np.int64)).to(self.device, non_blocking=True)
            self.data_wait_s += time.perf_counter() - start
            yield Batch(video, label, self.index.keys(rows), [clip.position for clip in clips])

    def close(self) -> None:
        """Stop the reading threads and free DALI's memory, which a reference cycle with this loader would keep.

        A loader that was read to its end is already closed."""
        self._reads.close()
        self._hand_over.close()
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
    group: int = 0,
    options: LoaderOptions = LoaderOptions(),
) -> ClipLoader:
    """Load training clips: of the global batch of each step, the slice of worker `rank` of `workers`. Crops are random,
    and clips are mirrored at random. Videos without a label are left out.

    batch_size: clips in the global batch. clips: per video and epoch. lengths: usable frames of each labeled video of
    the split (default: all). group: see `rank_slice`. Raises UserError for a missing split and for one without labels,
    and UsageError if frames are smaller than the crop."""
    index = Index(dataset, stream)
    rows = index.labeled_rows(split)
    planes = max(STREAMS[stream].planes, 1)
    smallest = int(min(index.heights[rows].min(), (index.widths[rows] // planes).min()))
    if smallest < transform.crop and transform.resized_crop is None:
        raise UsageError(
            f"the crop of {transform.crop} pixels does not fit into frames of {smallest} pixels: "
            f"preprocess with --short-side {transform.crop} or more, or use a smaller --transform.crop"
        )
    order = TrainOrder(rows, index.lengths[rows] if lengths is None else lengths, sampling, seed=seed, clips=clips)
    batches = (rank_slice(step, batch_size, rank, workers=workers, group=group) for step in steps)
    return ClipLoader(
        index,
        order,
        batches,
        max_clips=-(-batch_size // workers),
        transform=transform,
        crop_mode="random",
        options=options,
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
    labeled: bool = False,
) -> ClipLoader:
    """Load uniform clips of the videos of worker `rank` of `workers`, in order; the views of a video are consecutive
    (`UniformOrder`).

    clips: per video. max_clips: maximum clips in a batch; fewer of full frames that are long and thin, see
    `clips_per_batch`. crops: 1 for full frames (the middle of very long and thin ones, see `crop_window`), more for
    squares along the longer side of the frame. index: of the stream, if it is already open. labeled: leave out videos
    without a label. Raises UserError for a missing split."""
    index = Index(dataset, stream) if index is None else index
    rows = index.labeled_rows(split) if labeled else index.rows(split)
    order = UniformOrder(rows, index.lengths[rows], sampling, clips=clips, crops=crops)
    videos = rank_slice(0, len(rows), rank, workers=workers)
    positions = range(videos.start * order.views, videos.stop * order.views)
    frame_sizes = index.widths.astype(np.int64) << 32 | index.heights
    per_batch = clips_per_batch(frame_aspects(index), max_clips) if crops == 1 else max_clips
    batches = uniform_batches(order, positions, frame_sizes, max_clips=per_batch)
    return ClipLoader(
        index,
        order,
        batches,
        max_clips=max_clips,
        transform=transform,
        crop_mode="full_frame" if crops == 1 else "square",
        options=options,
    )


def frame_aspects(index: Index) -> np.ndarray:
    """Return the longer side of each video's frames over the shorter one, by row, float64."""
    widths, heights = index.widths // max(STREAMS[index.spec.stream].planes, 1), index.heights
    aspects: np.ndarray = np.maximum(widths, heights) / np.minimum(widths, heights)
    return aspects


def clips_per_batch(aspects: np.ndarray, max_clips: int) -> np.ndarray:
    """Return how many clips of full frames with these aspect ratios a batch may hold: at most `max_clips`, and at most
    the pixels of so many frames with the aspect ratio WIDE; at least 1. The memory of a batch depends on its pixels."""
    clips: np.ndarray = np.clip(max_clips * WIDE / np.minimum(aspects, MAX_ASPECT), 1, max_clips).astype(np.int64)
    return clips
