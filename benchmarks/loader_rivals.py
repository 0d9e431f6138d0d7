"""What a user would otherwise write: torch Datasets of training clips, by PyAV from the videos and by OpenCV from our
shards. Item i is the clip at position i of our clip order, so that every loader of the benchmark has the same work."""

import functools
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from lgd.pipeline.dataset.dataset import STREAMS, open_dataset, read_table
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import Clip, Sampling, TrainOrder
from lgd.pipeline.loading.dali import FLOW_ZERO
from lgd.pipeline.loading.transform import Transform, window

ITEMS = 10**9  # the clip order has no end


class ShardClips(Dataset[torch.Tensor]):
    """Clips (C x T x crop x crop, normalized float32) from the shards: a ranged read, cv2.imdecode, NumPy."""

    def __init__(self, dataset: str, stream: str, frames: int, *, transform: Transform):
        """Raises UserError for a dataset without that stream."""
        self.index = Index(open_dataset(dataset), stream)
        rows = self.index.rows("train")
        self.order = TrainOrder(rows, self.index.lengths[rows], Sampling(frames=frames))
        self.transform, self.planes = transform, STREAMS[stream].planes

    def __len__(self) -> int:
        return ITEMS

    def jpegs(self, clip: Clip) -> list[np.ndarray]:
        """The bytes of its frames, by one read of everything between the first and the last."""
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
        top, left, high, wide = window(self.transform, clip, height, width=width, part="drawn")
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
            return _normalized(np.stack(pictures), mirrored, zero, std=scale)
        return _normalized(np.stack(pictures), mirrored, self.transform.mean, std=self.transform.std)


class VideoClips(Dataset[torch.Tensor]):
    """Clips from the videos themselves: to the keyframe before the clip's start, and decoded from there on.

    A clip has T consecutive frames of the video, at the video's own frame rate."""

    def __init__(self, dataset: str, videos: str, frames: int, *, short_side: int, transform: Transform):
        """dataset: says which videos there are; videos: the folder of them. Frames are brought to short_side pixels."""
        opened = open_dataset(dataset)
        self.index = Index(opened, "rgb")
        rows = self.index.rows("train")
        self.order = TrainOrder(rows, self.index.lengths[rows], Sampling(frames=frames))
        table = read_table(opened.storage, "videos.parquet", ["key", "path"])
        self.paths = dict(zip(*(table.column(c).to_pylist() for c in ("key", "path")), strict=True))
        self.videos, self.frames, self.short_side, self.transform = Path(videos), frames, short_side, transform

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, position: int) -> torch.Tensor:
        clip = self.order.clip(position)
        free = max(int(self.index.lengths[clip.row]) - self.frames, 1)
        path = self.videos / self.paths[self.index.key(clip.row)]
        pictures = read_clip(path, min(int(clip.frames[0]) / free, 1), self.frames, short_side=self.short_side)
        height, width = pictures.shape[1:3]
        top, left, high, wide = window(self.transform, clip, height, width=width, part="drawn")
        cut = pictures[:, top : top + high, left : left + wide]
        return _normalized(cut, clip.flip and self.transform.flip, self.transform.mean, std=self.transform.std)


def read_clip(path: Path, start: float, count: int, *, short_side: int) -> np.ndarray:
    """uint8 count x H x W x 3 of a video, looped if it ends before.

    start: the place of the first frame as a fraction of its free play."""
    pictures: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        scale = short_side / min(stream.width, stream.height)
        width, height = round(stream.width * scale), round(stream.height * scale)
        clock = float(stream.time_base or 1)
        length_s = stream.duration * clock if stream.duration else (container.duration or 0) / av.time_base
        first = (stream.start_time or 0) + start * max(length_s - count / float(stream.average_rate or 25), 0) / clock
        container.seek(int(first), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts >= int(first):
                pictures.append(frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray())
                if len(pictures) == count:
                    break
        if not pictures:  # its length is less than its container says
            pictures.append(frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray())
    return np.stack([pictures[i % len(pictures)] for i in range(count)])


def _normalized(pictures: np.ndarray, mirrored: bool, mean, *, std) -> torch.Tensor:
    """uint8 T x H x W x C -> float32 C x T x H x W."""
    clip = torch.from_numpy(np.ascontiguousarray(pictures[:, :, ::-1] if mirrored else pictures)).float()
    return clip.sub_(torch.tensor(mean)).div_(torch.tensor(std)).permute(3, 0, 1, 2)
