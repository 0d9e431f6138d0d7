"""How many chunks a split is cut into for an evaluation, and the names of their files.

<identity>-000012.parquet             chunk 12 of as many chunks as `standard_chunks` returns
<identity>-000040-000012.parquet      chunk 12 of 40

The number of chunks depends on the cluster, and the names contain it: an evaluation that resumes on a different cluster
keeps the number with which it began. Scores do not depend on it, up to float32 rounding."""

import re
from collections.abc import Iterable

from lgd.pipeline.dataset.dataset import StreamSpec
from lgd.training.recipes import TrainConfig
from lgd.training.scoring.protocol import TestProtocol

MIN_CHUNKS = 16  # of a split with so many videos, on CPUs: work for every worker, and little is lost with one of them
MAX_VIDEOS = 64  # per chunk on CPUs
# Work is counted in pixels of all frames of all views. A chunk starts a DALI pipeline, which takes seconds.
CPU_WORK = 3.3e8  # per chunk: 64 videos of the paper's protocol; LGD-3D R50 needs 20 minutes or more on one CPU
GPU_WORK = 4e9  # per chunk: estimated 30 s of LGD-3D R50 on an H100
CHUNKS_PER_GPU = 2  # at least, so that a GPU that is faster than the others is used
ASPECT = 4 / 3  # of full frames: an estimate
CHUNK_FILE = re.compile(r"([0-9a-f]{16})-(?:(\d{6})-)?\d{6}\.parquet")


def standard_chunks(videos: int) -> int:
    """Return the number of chunks of a split on CPUs. It is part of the identity of every evaluation of the split."""
    return min(videos, max(MIN_CHUNKS, -(-videos // MAX_VIDEOS)))


def video_work(config: TrainConfig, protocol: TestProtocol, spec: StreamSpec) -> float:
    """Return an estimate of the work of one video: views x frames x pixels."""
    short_side = float(spec.settings.get("short_side", config.transform.crop))
    pixels = short_side * short_side * (ASPECT if protocol.crops == 1 else 1.0)
    return protocol.clips_of(config) * protocol.crops * config.sampling.frames * pixels


def count_chunks(videos: int, work: float, *, gpus: int) -> int:
    """Return the number of chunks of a split for a cluster.

    work: of one video. gpus: tasks with a GPU that run at the same time; 0: tasks on CPUs."""
    if gpus:
        wanted = max(-(-videos * work // GPU_WORK), gpus * CHUNKS_PER_GPU)
    else:
        wanted = max(-(-videos * work // CPU_WORK), standard_chunks(videos))
    return max(min(int(wanted), videos), 1)


def chunk_prefix(identity: str, chunks: int, videos: int) -> str:
    """Return what the names of the files of an evaluation's chunks begin with."""
    return identity if chunks == standard_chunks(videos) else f"{identity}-{chunks:06d}"


def chunk_name(prefix: str, chunk: int) -> str:
    """Return the name of a chunk's file."""
    return f"{prefix}-{chunk:06d}.parquet"


def begun_chunks(names: Iterable[str], identity: str, videos: int) -> int | None:
    """Return the number of chunks with which an evaluation began, by the names of its files; None if there are none.

    Of several numbers, the one of which the largest part is complete."""
    complete: dict[int, int] = {}
    for name in names:
        if (match := CHUNK_FILE.fullmatch(name)) and match[1] == identity:
            chunks = int(match[2]) if match[2] else standard_chunks(videos)
            complete[chunks] = complete.get(chunks, 0) + 1
    return max(complete, key=lambda chunks: (complete[chunks] / chunks, chunks), default=None)
