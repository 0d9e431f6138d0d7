"""The same clips of several streams together, for networks that take both RGB and flow.

The clip order is a pure function: two loaders with the same order load the same clips, without communication.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import Sampling
from lgd.pipeline.loading.loader import Batch, ClipLoader, LoaderOptions, train_loader
from lgd.pipeline.loading.transform import Transform


class PairedBatch(NamedTuple):
    """N clips of several streams, with the same frames, crops and mirroring. label, key and position as in Batch."""

    video: dict[str, torch.Tensor]
    """By stream, as in Batch: N x C x T x H x W."""
    label: torch.Tensor
    key: list[str]
    position: list[int]


class PairedLoader:
    """Iterable of batches of several streams. Clips use only frames that every stream has."""

    def __init__(self, loaders: dict[str, ClipLoader]):
        self.loaders = loaders

    def __iter__(self) -> Iterator[PairedBatch]:
        for batches in zip(*self.loaders.values(), strict=True):
            first = batches[0]
            # A clip that one stream skipped because it is damaged is skipped in all streams.
            common = [position for position in first.position if all(position in batch.position for batch in batches)]
            video = {stream: _select(batch, common).video for stream, batch in zip(self.loaders, batches, strict=True)}
            selected = _select(first, common)
            yield PairedBatch(video, selected.label, selected.key, selected.position)

    def close(self) -> None:
        """Stop the reading threads."""
        for loader in self.loaders.values():
            loader.close()


def _select(batch: Batch, positions: Sequence[int]) -> Batch:
    """Return the clips of a batch at some of its positions."""
    if list(positions) == batch.position:
        return batch
    selected = [batch.position.index(position) for position in positions]
    return Batch(batch.video[selected], batch.label[selected], [batch.key[i] for i in selected], list(positions))


def paired_loader(
    dataset: Dataset,
    streams: Sequence[str],
    batch_size: int,
    *,
    steps: Iterable[int],
    sampling: Sampling = Sampling(),
    transform: Transform = Transform(),
    split: str = "train",
    seed: int = 0,
    clips: int = 1,
    rank: int = 0,
    workers: int = 1,
    options: LoaderOptions = LoaderOptions(),
) -> PairedLoader:
    """Load training clips of several streams, see `train_loader`; flow has one frame less than RGB, so the last RGB
    frame of each video is not used.

    Raises UserError if the videos of the streams differ."""
    indexes = {stream: Index(dataset, stream) for stream in streams}
    rows = {stream: index.labeled_rows(split) for stream, index in indexes.items()}
    keys = {stream: index.keys(rows[stream]) for stream, index in indexes.items()}
    if any(stream_keys != keys[streams[0]] for stream_keys in keys.values()):
        raise UserError(
            f"{dataset.storage.display()}: the streams {' and '.join(streams)} have different videos; "
            "rerun `lgd preprocess`"
        )
    lengths = np.min([index.lengths[rows[stream]] for stream, index in indexes.items()], axis=0)
    steps = list(steps)
    return PairedLoader(
        {
            stream: train_loader(
                dataset,
                stream,
                batch_size,
                steps=steps,
                sampling=sampling,
                transform=transform,
                split=split,
                seed=seed,
                clips=clips,
                lengths=lengths,
                rank=rank,
                workers=workers,
                options=options,
            )
            for stream in streams
        }
    )
