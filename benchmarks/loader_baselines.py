"""Baselines that a user would write: torch Datasets of training clips, from the videos or our shards (OpenCV).

Item i is the clip at position i of our clip order, so that every loader of the benchmark loads the same clips."""

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from lgd.benchmarks.video_readers import READERS
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.tables import VIDEOS, read_table
from lgd.pipeline.loading.clip_order import Clip, Sampling, TrainOrder
from lgd.pipeline.loading.dali import FLOW_ZERO
from lgd.pipeline.loading.transform import Transform, crop_window

ITEMS = 10**9  # length of the Datasets: the clip order is infinite


class ShardClips(Dataset[torch.Tensor]):
    """Clips (C x T x crop x crop, normalized float32) from the shards, with a ranged read, cv2.imdecode and NumPy."""

    def __init__(self, dataset: str, stream: str, frames: int, *, transform: Transform):
        """Raises UserError if the dataset does not have the stream."""
        self.index = Index(open_dataset(dataset), stream)
        rows = self.index.rows("train")
        self.order = TrainOrder(rows, self.index.lengths[rows], Sampling(frames=frames))
        self.transform, self.planes = transform, STREAMS[stream].planes

    def __len__(self) -> int:
        return ITEMS

    def jpegs(self, clip: Clip) -> list[np.ndarray]:
        """Return the JPEG bytes of a clip's frames, from one read of the range from the first to the last frame."""
        where = self.index.frames(clip.row, clip.frames)
        first = int(where.start.min())
        content = np.frombuffer(self._open(where.shard).read_at(int(where.end.max()) - first, first), np.uint8)
        return [content[start - first : end - first] for start, end in zip(where.start, where.end, strict=True)]

    @functools.cache  # noqa: B019  (a dataset lives as long as its process)
    def _open(self, shard: str) -> pa.NativeFile:
        return self.index.storage.open(shard)

    def __getitem__(self, position: int) -> torch.Tensor:
        clip = self.order.clip(position)
        height = int(self.index.heights[clip.row])
        width = int(self.index.widths[clip.row]) // max(self.planes, 1)
        top, left, high, wide = crop_window(self.transform, clip, height, width=width, crop_mode="random")
        pictures = []
        for jpeg in self.jpegs(clip):
            if self.planes:
                picture = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))[top : top + high]
                cut = [picture[:, n * width + left : n * width + left + wide] for n in range(self.planes)]
                pictures.append(np.stack(cut, axis=2))
            else:
                picture = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
                pictures.append(picture[top : top + high, left : left + wide, ::-1])
        mirrored = clip.flip and self.transform.flip
        if self.planes:
            signs = [-1 if mirrored else 1] + [1] * (self.planes - 1)
            zero, scale = [FLOW_ZERO] * self.planes, [self.transform.flow_std * sign for sign in signs]
            return _normalize(np.stack(pictures), mirrored, zero, std=scale)
        return _normalize(np.stack(pictures), mirrored, self.transform.mean, std=self.transform.std)


class VideoClips(Dataset[torch.Tensor]):
    """Clips decoded from the videos, starting at the keyframe before the clip's start.

    A clip has T consecutive frames at the frame rate of the video."""

    def __init__(
        self, dataset: str, videos: str, frames: int, *, short_side: int, transform: Transform, reader: str = "pyav"
    ):
        """dataset: lists the videos. videos: their folder. short_side: shorter side of the frames, pixels. reader: one
        of READERS."""
        opened = open_dataset(dataset)
        self.index = Index(opened, "rgb")
        rows = self.index.rows("train")
        self.order = TrainOrder(rows, self.index.lengths[rows], Sampling(frames=frames))
        table = read_table(opened.storage, VIDEOS, ["key", "path"])
        self.paths = dict(zip(*(table.column(c).to_pylist() for c in ("key", "path")), strict=True))
        self.videos, self.frames, self.short_side, self.transform = Path(videos), frames, short_side, transform
        self.read = READERS[reader]

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, position: int) -> torch.Tensor:
        clip = self.order.clip(position)
        free = max(int(self.index.lengths[clip.row]) - self.frames, 1)
        path = self.videos / self.paths[self.index.key(clip.row)]
        pictures = self.read(path, min(int(clip.frames[0]) / free, 1), self.frames, short_side=self.short_side)
        height, width = pictures.shape[1:3]
        top, left, high, wide = crop_window(self.transform, clip, height, width=width, crop_mode="random")
        cut = pictures[:, top : top + high, left : left + wide]
        return _normalize(cut, clip.flip and self.transform.flip, self.transform.mean, std=self.transform.std)


def _normalize(pictures: np.ndarray, mirrored: bool, mean: Sequence[float], *, std: Sequence[float]) -> torch.Tensor:
    """Convert uint8 T x H x W x C to normalized float32 C x T x H x W."""
    clip = torch.from_numpy(np.ascontiguousarray(pictures[:, :, ::-1] if mirrored else pictures)).float()
    return clip.sub_(torch.tensor(mean)).div_(torch.tensor(std)).permute(3, 0, 1, 2)
