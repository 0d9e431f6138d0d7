"""One Ray task of an evaluation: the videos of a part of the split -> a table of their scores."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from pipeline.cache import Caching, ShardCache
from pipeline.dataset import Dataset
from pipeline.errors import UserError
from pipeline.index import Index
from pipeline.order import share
from pipeline.storage import Storage
from training.models.lgd import Network
from training.protocol import Protocol
from training.run import Run
from training.scores import score_table
from training.scoring import VideoScores, score_rows, trained_network

REPORTS = 16  # of its progress that a task makes: a count, not a time, so that a repeated task makes the same ones


@dataclass
class Scored:
    """What a task has done since it last said so."""

    videos: int = 0

    @property
    def done(self) -> int:
        return self.videos

    def add(self, other: "Scored") -> None:
        self.videos += other.videos

    def note(self, seconds: float) -> str:
        return f"{self.videos / seconds:.1f} videos/s"


@dataclass(frozen=True)
class Job:
    """What every task is told.

    weights: Ray's reference to the network's; all tasks have those that the driver saw, whatever becomes of the file.
    count: of the parts. device: cpu or cuda."""

    run: Run
    weights: Any
    dataset: Dataset
    split: str
    protocol: Protocol
    folder: Storage
    identity: str
    count: int
    batch: int
    threads: int
    device: str
    caching: Caching


def part_name(identity: str, part: int) -> str:
    """Of a part's file."""
    return f"{identity}-{part:06d}.parquet"


def score_part(job: Job, part: int) -> Iterator[Scored]:
    """One Ray task: the videos of a part -> its table. Yields its progress."""
    if job.folder.local and not job.folder.exists():
        raise UserError(
            f"{job.folder.show()} is not there on {platform.node()}: the folders must be the same on every node of the "
            "cluster, by a shared file system or an object store"
        )
    network, index, cache = _loaded(job)
    videos = list[VideoScores]()
    every = -(-len(share(0, len(index.rows(job.split)), part, job.count)) // REPORTS)
    for video in score_rows(
        network,
        job.run.config,
        job.dataset,
        job.split,
        job.protocol,
        torch.device(job.device),
        job.batch,
        part,
        job.count,
        job.threads,
        cache,
        index,
    ):
        videos.append(video)
        if len(videos) % every == 0:
            yield Scored(every)
    rows = [video.row for video in videos]
    views = {
        name: np.stack([getattr(video, name) for video in videos])
        for name in ("clip_probabilities", "local_features", "global_features")
        if getattr(videos[0], name) is not None
    }
    table = score_table(index.keys(rows), index.labels[rows], np.stack([v.probabilities for v in videos]), views)
    with job.folder.writer(part_name(job.identity, part)) as file:
        pq.write_table(table, file, write_page_checksum=True)
    yield Scored(len(videos) % every)


Loaded = tuple[Network, Index, ShardCache | None]

_LOADED: dict[str, Loaded] = {}  # what this process has for the evaluation that it last had a task of


def _loaded(job: Job) -> Loaded:
    """What all parts need, which a process gets ready once."""
    if job.identity not in _LOADED:
        import ray

        if job.device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"the GPU of {platform.node()} cannot be used by this PyTorch: install one for it, or hide it "
                "(CUDA_VISIBLE_DEVICES=) to score on CPUs"
            )
        _LOADED.clear()
        torch.set_num_threads(job.threads)
        weights = {key: torch.from_numpy(value.copy()) for key, value in ray.get(job.weights).items()}
        network = trained_network(job.run, weights, torch.device(job.device))
        caching = job.caching
        cache = ShardCache(caching.cache, int(caching.cache_gb * 1e9)) if caching.cache else None
        _LOADED[job.identity] = network, Index(job.dataset, job.run.config.stream, cache), cache
    return _LOADED[job.identity]
