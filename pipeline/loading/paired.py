"""The same clips of several streams together, for networks that take both RGB and flow.

The clip order is a pure function, so that two loaders with the same order serve the same clips; nothing is exchanged.
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
    """video: of each stream N x C x T x H x W, as in Batch: the same frames, crops and mirrorings. label, key and
    position as in Batch."""

    video: dict[str, torch.Tensor]
    label: torch.Tensor
    key: list[str]
    position: list[int]


class PairedLoader:
    """Batches of several streams. Frames are drawn from those that all streams have: flow has one less than RGB."""

    def __init__(self, loaders: dict[str, ClipLoader]):
        self.loaders = loaders

    def __iter__(self) -> Iterator[PairedBatch]:
        for batches in zip(*self.loaders.values(), strict=True):
            first = batches[0]
            # A clip that is damaged in one stream, and left out of its batch, is left out of the others' as well.
            both = [at for at in first.position if all(at in batch.position for batch in batches)]
            video = {}
            for stream, batch in zip(self.loaders, batches, strict=True):
                video[stream] = _at(batch, both).video
            chosen = _at(first, both)
            yield PairedBatch(video, chosen.label, chosen.key, chosen.position)

    def close(self) -> None:
        """Stops the reading threads."""
        for loader in self.loaders.values():
            loader.close()


def _at(batch: Batch, positions: Sequence[int]) -> Batch:
    """The part of a batch at some of its positions."""
    if list(positions) == batch.position:
        return batch
    where = [batch.position.index(position) for position in positions]
    return Batch(batch.video[where], batch.label[where], [batch.key[i] for i in where], list(positions))


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
    """Training clips of several streams, see `train_loader`. Raises UserError unless all hold the same videos."""
    indexes = {stream: Index(dataset, stream) for stream in streams}
    rows = {stream: index.rows(split) for stream, index in indexes.items()}
    keys = {stream: index.keys(rows[stream]) for stream, index in indexes.items()}
    if any(those != keys[streams[0]] for those in keys.values()):
        raise UserError(
            f"{dataset.storage.display()}: {' and '.join(streams)} hold other videos: run `lgd preprocess` again"
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
