"""One loader measured in a process of its own, which `lgd.benchmarks.loader` has pinned to a core before it starts."""

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

WORKERS = (0, 1)  # of the torch DataLoader: the better counts
WARM_UP_BATCHES = 3


@dataclass(frozen=True)
class Case:
    """stream: its clips are loaded; frames: in a clip; batch: clips."""

    stream: str
    frames: int
    batch: int


@dataclass(frozen=True)
class LoaderJob:
    """loader: ours, pyav, opencv or dali. dataset, videos: folders. short_side, crop: pixels. A case is measured for so
    many seconds and so many clips at least."""

    loader: str
    dataset: str
    videos: str
    cases: dict[str, Case]
    short_side: int
    crop: int
    seconds: float
    clips: int


def measure(job: LoaderJob) -> dict[str, dict[str, dict[str, float]]]:
    """By case and by the way it is loaded: clips_per_s, taken_share (of the wall time that something else had the core)
    and, for ours, bytes_read and bytes_used."""
    return {name: dict(measure_case(job, case)) for name, case in job.cases.items()}


def measure_case(job: LoaderJob, case: Case) -> Iterator[tuple[str, dict[str, float]]]:
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
        loader.close()  # ends the reads in flight, which are counted in parts
        yield "ours", {**speed, "bytes_read": loader.reader.bytes_read, "bytes_used": loader.reader.bytes_used}
        return
    from lgd.benchmarks.loader_rivals import ShardClips, VideoClips

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
    if job.loader == "pyav":
        clips = VideoClips(job.dataset, job.videos, case.frames, short_side=job.short_side, transform=transform)
    for workers in WORKERS:
        batches = iter(DataLoader(clips, case.batch, num_workers=workers))
        yield f"{workers} workers", clips_per_s((len(batch) for batch in batches), job)
        del batches  # ends its worker


def clips_per_s(batches: Iterator[int], job: LoaderJob) -> dict[str, float]:
    """batches: the clips in each, as it is there.

    Seconds are those of the wall, less those in which something else had the core: on a machine that does nothing else
    they are the same, and waiting, for a disk say, always counts."""
    start = time.perf_counter()
    for _ in range(WARM_UP_BATCHES):
        next(batches)
        if time.perf_counter() > start + job.seconds:
            break
    clips, wall, ours = 0, time.perf_counter(), core_s()
    while clips < job.clips or time.perf_counter() < wall + job.seconds:
        clips += next(batches)
    spent = time.perf_counter() - wall
    had = min(core_s() - ours, spent)
    return {"clips_per_s": clips / had, "taken_share": 1 - had / spent}


def core_s() -> float:
    """Seconds that the core of this process has worked for it and its children, or for nobody."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user and in kernel mode
    (core,) = os.sched_getaffinity(0)
    (line,) = (line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    idle, waiting = line.split()[4:6]  # for nothing, and for a disk
    return time.process_time() + (ticks + int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def encoded(job: LoaderJob) -> str:
    return json.dumps(dataclasses.asdict(job))


def decoded_job(text: str) -> LoaderJob:
    fields: dict[str, Any] = json.loads(text)
    return LoaderJob(**{**fields, "cases": {name: Case(**case) for name, case in fields["cases"].items()}})


if __name__ == "__main__":
    with stdout_for_result(alone=True) as answer:
        json.dump(measure(decoded_job(sys.argv[1])), answer)
