"""Child process of `lgd.benchmarks.loader`: measures one loader, pinned to one core from its start."""

import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgd.pipeline.console.command_line import stdout_for_result
from lgd.pipeline.loading.transform import Transform

DATALOADER_WORKERS = (0, 1)  # of the torch DataLoader: the faster one counts
WARM_UP_BATCHES = 3


@dataclass(frozen=True)
class Case:
    """Which clips a loader loads. frames: per clip. batch: clips per batch."""

    stream: str
    frames: int
    batch: int


@dataclass(frozen=True)
class LoaderJob:
    """A loader to measure.

    loader: ours, a reader of videos (READERS), opencv or dali. dataset, videos: folders. cases: by name. short_side,
    crop: pixels. seconds, clips: minimum per case."""

    loader: str
    dataset: str
    videos: str
    cases: dict[str, Case]
    short_side: int
    crop: int
    seconds: float
    clips: int


def measure(job: LoaderJob) -> dict[str, dict[str, dict[str, float]]]:
    """Return case -> variant of the loader -> its numbers.

    The numbers are clips_per_s, taken_share (fraction of the wall time in which other processes used the core) and, for
    our loader, bytes_read and bytes_used."""
    return {name: dict(measure_case(job, case)) for name, case in job.cases.items()}


def measure_case(job: LoaderJob, case: Case) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each variant of the loader and its numbers."""
    transform = Transform(crop=job.crop)
    if job.loader == "ours":
        from lgd.pipeline.dataset.dataset import open_dataset
        from lgd.pipeline.loading.clip_order import Sampling
        from lgd.pipeline.loading.loader import train_loader

        steps, sampling = range(10**9), Sampling(frames=case.frames)
        loader = train_loader(
            open_dataset(job.dataset), case.stream, case.batch, steps=steps, sampling=sampling, transform=transform
        )
        speed = clips_per_s((len(batch.key) for batch in loader), job)
        loader.close()  # waits for the reads in flight, which are counted only in part
        yield "ours", {**speed, "bytes_read": loader.reader.bytes_read, "bytes_used": loader.reader.bytes_used}
        return
    from lgd.benchmarks.loader_baselines import ShardClips, VideoClips
    from lgd.benchmarks.video_readers import READERS

    shards = ShardClips(job.dataset, case.stream, case.frames, transform=transform)
    if job.loader == "dali":
        from lgd.benchmarks.bare_dali import decoded

        yield "dali", clips_per_s(decoded(shards, case.batch), job)
        return
    import cv2
    import torch
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips: Dataset[torch.Tensor] = shards
    if job.loader in READERS:
        clips = VideoClips(
            job.dataset,
            job.videos,
            case.frames,
            short_side=job.short_side,
            transform=transform,
            reader=job.loader,
        )
    for workers in DATALOADER_WORKERS:
        batches = iter(DataLoader(clips, case.batch, num_workers=workers))
        yield f"{workers} workers", clips_per_s((len(batch) for batch in batches), job)
        del batches  # ends the DataLoader's worker


def clips_per_s(batches: Iterator[int], job: LoaderJob) -> dict[str, float]:
    """Measure the speed of a loader. batches: the number of clips in each batch, as soon as it is ready.

    The seconds are wall time minus the time in which other processes used the core. On an idle machine they are the
    wall time. Time spent waiting, for example for a disk, always counts."""
    start = time.perf_counter()
    for _ in range(WARM_UP_BATCHES):
        next(batches)
        if time.perf_counter() > start + job.seconds:
            break
    clips, start, used_before = 0, time.perf_counter(), core_s()
    while clips < job.clips or time.perf_counter() < start + job.seconds:
        clips += next(batches)
    wall_s = time.perf_counter() - start
    used_s = min(core_s() - used_before, wall_s)
    return {"clips_per_s": clips / used_s, "taken_share": 1 - used_s / wall_s}


def core_s() -> float:
    """Return the seconds in which the core of this process worked for it or its children, or was idle."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and kernel mode
    (core,) = os.sched_getaffinity(0)
    (line,) = (line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    idle, waiting = line.split()[4:6]  # waiting: for a disk
    return time.process_time() + (ticks + int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def encode_job(job: LoaderJob) -> str:
    """Return the job as JSON, the argument of the child process."""
    return json.dumps(dataclasses.asdict(job))


def decode_job(text: str) -> LoaderJob:
    fields: dict[str, Any] = json.loads(text)
    return LoaderJob(**{**fields, "cases": {name: Case(**case) for name, case in fields["cases"].items()}})


if __name__ == "__main__":
    with stdout_for_result(alone=True) as output:
        json.dump(measure(decode_job(sys.argv[1])), output)
