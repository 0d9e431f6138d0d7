"""One Ray task of an evaluation: scores one chunk of the split's videos and writes its rows to a file."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from lgd.training.gpu import check_gpu
from lgd.training.models.lgd import Network
from lgd.training.run import Run
from lgd.training.scoring.chunk_plan import chunk_name
from lgd.training.scoring.inference import VideoScores, load_network, score_rows
from lgd.training.scoring.protocol import TestProtocol
from lgd.training.scoring.scores import score_table

REPORTS = 16  # of progress per task: a number and not a time, so that a repeated task makes the same reports


@dataclass
class ScoreCounters:
    """Progress of a task since its last report."""

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
    """Arguments that all tasks of an evaluation share.

    weights: Ray's reference to the network's weights; all tasks use those that the driver read, even if the checkpoint
    is deleted meanwhile. folder, prefix: of the chunks' files. chunks: number of chunks. threads: CPU threads per task.
    device: cpu or cuda."""

    run: Run
    weights: Any
    dataset: Dataset
    split: str
    protocol: TestProtocol
    folder: Storage
    prefix: str
    chunks: int
    batch_size: int
    threads: int
    device: str
    cache_config: CacheConfig


def score_chunk(job: ScoreJob, chunk: int) -> Iterator[ScoreCounters]:
    """Score the videos of a chunk and write its file. Yields its progress. Runs as a Ray task."""
    if job.folder.local and not job.folder.exists():
        raise UserError(
            f"{job.folder.display()} is missing on {platform.node()}: folders must be the same on every node of the "
            "cluster, on a shared file system or in object storage"
        )
    network, dataset, index = _loaded(job)
    videos = list[VideoScores]()
    interval = -(-len(rank_slice(0, len(index.rows(job.split)), chunk, workers=job.chunks)) // REPORTS)
    for video in score_rows(
        network,
        job.run.config,
        dataset,
        split=job.split,
        protocol=job.protocol,
        device=torch.device(job.device),
        batch_size=job.batch_size,
        chunk=chunk,
        chunks=job.chunks,
        threads=job.threads,
        index=index,
    ):
        videos.append(video)
        if len(videos) % interval == 0:
            yield ScoreCounters(interval)
    rows = [video.row for video in videos]
    views = {
        name: np.stack([getattr(video, name) for video in videos])
        for name in ("clip_probabilities", "local_features", "global_features")
        if getattr(videos[0], name) is not None
    }
    probabilities = np.stack([video.probabilities for video in videos])
    table = score_table(index.keys(rows), index.labels[rows], probabilities, views=views)
    with job.folder.writer(chunk_name(job.prefix, chunk)) as file:
        pq.write_table(table, file, write_page_checksum=True)
    yield ScoreCounters(len(videos) % interval)


Loaded = tuple[Network, Dataset, Index]

_LOADED: dict[str, Loaded] = {}  # by prefix: of the evaluation that this process worked for last


def _loaded(job: ScoreJob) -> Loaded:
    """Return what all chunks need; each process loads it once."""
    if job.prefix not in _LOADED:
        import ray

        if job.device == "cuda":
            check_gpu()
        _LOADED.clear()
        torch.set_num_threads(job.threads)
        weights = {key: torch.from_numpy(value.copy()) for key, value in ray.get(job.weights).items()}
        network = load_network(job.run, weights, torch.device(job.device))
        config = job.cache_config
        cache = ShardCache(config.cache, int(config.cache_gb * 1e9)) if config.cache else None
        dataset = replace(job.dataset, cache=cache)
        _LOADED[job.prefix] = network, dataset, Index(dataset, job.run.config.stream)
    return _LOADED[job.prefix]
