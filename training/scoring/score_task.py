"""One Ray task of an evaluation: the videos of a part of the split -> a table of their scores."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import rank_slice
from lgd.pipeline.storage.cache import CacheConfig, ShardCache
from lgd.pipeline.storage.storage import Storage
from lgd.training.models.lgd import Network
from lgd.training.run import Run
from lgd.training.scoring.inference import VideoScores, score_rows, trained_network
from lgd.training.scoring.protocol import TestProtocol
from lgd.training.scoring.scores import score_table

REPORTS = 16  # of its progress that a task makes: a count, not a time, so that a repeated task makes the same ones


@dataclass
class ScoreCounters:
    """What a task has done since it last said so."""

    videos: int = 0

    @property
    def done(self) -> int:
        return self.videos

    def add(self, other: "ScoreCounters") -> None:
        self.videos += other.videos

    def note(self, seconds: float) -> str:
        return f"{self.videos / seconds:.1f} videos/s"


@dataclass(frozen=True)
class ScoreJob:
    """What every task is told.

    weights: Ray's reference to the network's; all tasks have those that the driver saw, whatever becomes of the file.
    count: of the parts. device: cpu or cuda."""

    run: Run
    weights: Any
    dataset: Dataset
    split: str
    protocol: TestProtocol
    folder: Storage
    identity: str
    count: int
    batch: int
    threads: int
    device: str
    cache_config: CacheConfig


def part_name(identity: str, part: int) -> str:
    """Of a part's file."""
    return f"{identity}-{part:06d}.parquet"


def score_part(job: ScoreJob, part: int) -> Iterator[ScoreCounters]:
    """One Ray task: the videos of a part -> its table. Yields its progress."""
    if job.folder.local and not job.folder.exists():
        raise UserError(
            f"{job.folder.display()} is not there on {platform.node()}: the folders must be the same on every node of the "
            "cluster, by a shared file system or an object store"
        )
    network, index, cache = _loaded(job)
    videos = list[VideoScores]()
    every = -(-len(rank_slice(0, len(index.rows(job.split)), part, workers=job.count)) // REPORTS)
    for video in score_rows(
        network,
        job.run.config,
        job.dataset,
        split=job.split,
        protocol=job.protocol,
        device=torch.device(job.device),
        batch=job.batch,
        part=part,
        parts=job.count,
        threads=job.threads,
        cache=cache,
        index=index,
    ):
        videos.append(video)
        if len(videos) % every == 0:
            yield ScoreCounters(every)
    rows = [video.row for video in videos]
    views = {
        name: np.stack([getattr(video, name) for video in videos])
        for name in ("clip_probabilities", "local_features", "global_features")
        if getattr(videos[0], name) is not None
    }
    table = score_table(index.keys(rows), index.labels[rows], np.stack([v.probabilities for v in videos]), views=views)
    with job.folder.writer(part_name(job.identity, part)) as file:
        pq.write_table(table, file, write_page_checksum=True)
    yield ScoreCounters(len(videos) % every)


Loaded = tuple[Network, Index, ShardCache | None]

_LOADED: dict[str, Loaded] = {}  # what this process has for the evaluation that it last had a task of


def _loaded(job: ScoreJob) -> Loaded:
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
        cache_config = job.cache_config
        cache = ShardCache(cache_config.cache, int(cache_config.cache_gb * 1e9)) if cache_config.cache else None
        _LOADED[job.identity] = network, Index(job.dataset, job.run.config.stream, cache), cache
    return _LOADED[job.identity]
