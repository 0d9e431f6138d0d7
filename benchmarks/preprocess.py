"""The preprocessing job on a user's videos: where its time goes, what a second worker brings, what Kinetics would cost.

The real job makes a dataset in a temporary folder (TMPDIR says where), with one worker and with two in turn, the order
changing from round to round, on one embedded cluster that is warm by then. Stages, speeds and costs are those of
worker time: a worker is one core. The job times decoding and resizing as one, because one ffmpeg does both; on a
sample of the videos the same ffmpeg run is timed with and without the resizing, which gives its share. On the same
sample OpenCV's TV-L1 solves a few pairs beside ours, so that the projection has an alternative of this machine.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.table import Column, Table

from lgd.clusters.embedded import ensure_cluster
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.loading.clip_order import evenly
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.read import Manifest, read_manifest
from lgd.preprocessing.flow.tvl1 import compute_flow, warm_up
from lgd.preprocessing.job import preprocess
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.preprocessing.video.decode import decode, resize_seconds
from lgd.preprocessing.video.rejections import Rejected

WARM_UP_VIDEOS = 5  # two shards: one for each worker
SAMPLE_VIDEOS, SAMPLE_PAIRS, SAMPLE_TIMES = 6, 4, 3


@dataclass(frozen=True)
class Collection:
    """A collection of clips to project on. Clips listed in each split."""

    train: int
    val: int

    @property
    def clips(self) -> int:
        return self.train + self.val


CLIP_S = 10.0  # of Kinetics
KINETICS: Mapping[str, Collection] = {
    # Train: 306,245 clips without 50 val and 100 test clips for each of 400 classes (Kay et al., "The Kinetics Human
    # Action Video Dataset", 2017). Val: rows of the published list.
    "kinetics400": Collection(train=246_245, val=19_906),
    # Train: Carreira et al., "A Short Note about Kinetics-600", 2018. Val: rows of the published list.
    "kinetics600": Collection(train=392_622, val=30_000),
}


@dataclass(frozen=True)
class Run:
    """One run of the job. wall_s: of all tasks; seconds: of worker time by the job's stages."""

    workers: int
    wall_s: float
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Made:
    """What every run makes: shards, videos and frames of the dataset, and how many videos were rejected."""

    shards: int
    videos: int
    frames: int
    rejected: int

    @property
    def flow_pairs(self) -> int:
        return self.frames - self.videos


@dataclass(frozen=True)
class Sample:
    """What was measured on a few videos, alone on one core. resize_of_decode: the fraction of the job's decode stage
    that is resizing; opencv_s, ours_s: seconds of TV-L1 a pair."""

    videos: int
    resize_of_decode: float
    opencv_s: float
    ours_s: float


def run(videos: Path, settings: Settings, limit: int, *, rounds: int) -> dict[str, Any]:
    """Measures everything; returns it as one JSON document.

    videos: a folder of class folders. limit: how many of its videos, evenly chosen. rounds: runs with one worker, and
    as many with two. Raises UserError for a folder without videos, and if none of them can be decoded."""
    manifest = chosen(read_manifest(videos), limit)
    say(f"starting a cluster and warming it up; then {rounds} rounds on {len(manifest.videos)} videos")
    ensure_cluster(2)
    run_job(videos, chosen(manifest, WARM_UP_VIDEOS), settings, workers=2)
    runs = []
    for number in range(rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            done, made = run_job(videos, manifest, settings, workers=workers)
            if made.videos == 0:
                raise UserError(f"none of {len(manifest.videos)} videos of {videos} can be decoded")
            runs.append(done)
            say(f"round {number + 1} of {rounds}, workers {workers}: {done.wall_s:.1f} s")
    sample = measure_sample([videos / video.path for video in chosen(manifest, SAMPLE_VIDEOS).videos], settings)
    return document(runs, made, sample, settings=settings)


def chosen(manifest: Manifest, count: int) -> Manifest:
    """`count` videos, evenly chosen, all in one split: so that they fill as few and as equal shards as can be."""
    picked = [manifest.videos[i] for i in evenly(len(manifest.videos), count)]
    return Manifest(tuple(dataclasses.replace(video, split="train") for video in picked), manifest.classes)


def run_job(videos: Path, manifest: Manifest, settings: Settings, *, workers: int) -> tuple[Run, Made]:
    """The job, on the cluster that there is, into a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="lgd-bench-") as folder:
        out = str(Path(folder) / "data")
        outcome = preprocess(
            Storage(videos),
            out,
            manifest,
            streams=("rgb", "flow"),
            settings=settings,
            resources=PreprocessResources(num_workers=workers),
            start_cluster=ensure_cluster,
        )
        frames = open_dataset(out).summary["frames"]
    made = Made(outcome.shards_made, outcome.videos, frames, outcome.rejected)
    return Run(workers, outcome.work_s, outcome.seconds), made


def measure_sample(paths: Sequence[Path], settings: Settings) -> Sample:
    """Videos that cannot be decoded are left out. Raises UserError if that is all of them."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    decode_s = resize_s = 0.0
    flow_s = {"opencv": 0.0, settings.flow.backend: 0.0}
    pairs = videos = 0
    warm_up(settings.flow.backend)
    try:
        for path in paths:
            try:
                rgb, whole, resizing = _decode_in_parts(path, settings)
            except Rejected:
                continue  # the job has counted it
            videos += 1
            decode_s += whole
            resize_s += resizing
            middle = max(len(rgb) // 2 - SAMPLE_PAIRS, 0)
            some = rgb[middle : middle + SAMPLE_PAIRS + 1]
            gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in some])
            for backend in flow_s:
                start = time.perf_counter()
                compute_flow(gray, settings.flow.tvl1, backend)
                flow_s[backend] += time.perf_counter() - start
            pairs += len(gray) - 1
    finally:
        cv2.setNumThreads(threads)
    if not videos:
        raise UserError(f"none of the {len(paths)} videos of the sample can be decoded: choose more with --limit")
    share = min(max(resize_s / decode_s, 0.0), 1.0)
    return Sample(videos, share, flow_s["opencv"] / pairs, flow_s[settings.flow.backend] / pairs)


def _decode_in_parts(path: Path, settings: Settings) -> tuple[np.ndarray, float, float]:
    """The frames, and the median seconds of decoding them and of the resizing in it."""
    decoding, resizing = [], []
    for _ in range(SAMPLE_TIMES):
        start = time.perf_counter()
        frames = decode(path, settings.fps, settings.short_side)
        decoding.append(time.perf_counter() - start)
        resizing.append(resize_seconds(path, settings.fps, settings.short_side))
    return frames.rgb, statistics.median(decoding), statistics.median(resizing)


def document(runs: Sequence[Run], made: Made, sample: Sample, *, settings: Settings) -> dict[str, Any]:
    """All numbers. Stages and costs are of the runs with one worker: nothing else wanted its core."""
    alone = [done for done in runs if done.workers == 1]
    walls = {workers: [done.wall_s for done in runs if done.workers == workers] for workers in (1, 2)}
    spent = {stage: sum(done.seconds[stage] for done in alone) for stage in ("decode", "flow", "jpeg", "write")}
    spent["resize"] = spent["decode"] * sample.resize_of_decode
    spent["decode"] -= spent["resize"]
    total = sum(spent.values())
    stages = {stage: spent[stage] / total for stage in ("decode", "resize", "flow", "jpeg", "write")}
    two_over_one = statistics.median(one / two for one, two in zip(walls[1], walls[2], strict=True))
    source_s = made.frames / settings.fps
    cost = total / len(alone) / source_s
    # Everything but the flow solver costs the same with OpenCV's.
    cost_with_opencv = cost + (sample.opencv_s - sample.ours_s) * made.flow_pairs / source_s
    return {
        "videos": made.videos,
        "rejected": made.rejected,
        "shards": made.shards,
        "source_s": source_s,
        "short_side": settings.short_side,
        "stages": stages,
        "decode_and_flow": stages["decode"] + stages["resize"] + stages["flow"],
        "outside_stages": 1 - total / sum(walls[1]),
        "two_workers_over_one": two_over_one,
        "wall_s": {"1": walls[1], "2": walls[2]},
        "videos_per_s": made.videos / statistics.median(walls[2]),
        "flow_pairs_per_s": made.flow_pairs / statistics.median(walls[2]),
        "worker_s_a_source_s": cost,
        "tvl1_ms": {"ours": 1e3 * sample.ours_s, "opencv": 1e3 * sample.opencv_s},
        "core_hours": {
            name: {
                "clips": collection.clips,
                "ours": cost * collection.clips * CLIP_S / 3600,
                "with_opencv_tvl1": cost_with_opencv * collection.clips * CLIP_S / 3600,
            }
            for name, collection in KINETICS.items()
        },
        "assumptions": _assumptions(made, sample, settings, two_over_one=two_over_one),
    }


def _assumptions(made: Made, sample: Sample, settings: Settings, *, two_over_one: float) -> list[str]:
    """What the projection takes for granted, a sentence each."""
    return [
        *(
            f"{name} is {collection.train:,} train + {collection.val:,} val clips of {CLIP_S:g} s"
            for name, collection in KINETICS.items()
        ),
        f"{settings.fps:g} frames a second, short side {settings.short_side}, streams rgb and flow",
        f"a second of Kinetics costs what a second of these {made.videos} videos costs: codec, size and motion alike",
        f"a worker is a core, and workers do not slow each other (two are {two_over_one:.2f} times as fast as one)",
        f"with OpenCV's TV-L1 only the solver costs more: measured on {sample.videos} videos beside ours, one core",
    ]


def report(result: dict[str, Any]) -> list[Any]:
    """The result of run() for people: lines and tables."""
    stages = Table("worker time", Column("share", justify="right"))
    for stage, share in result["stages"].items():
        stages.add_row(stage, f"{share:.1%}")
    stages.add_section()
    stages.add_row("decode + resize + flow", f"{result['decode_and_flow']:.1%}")
    hours = Table("core-hours", *(Column(title, justify="right") for title in ("clips", "ours", "with OpenCV's TV-L1")))
    for name, row in result["core_hours"].items():
        hours.add_row(name, f"{row['clips']:,}", f"{row['ours']:,.0f}", f"{row['with_opencv_tvl1']:,.0f}")
    rejected = f", {result['rejected']} rejected" if result["rejected"] else ""
    milliseconds = result["tvl1_ms"]
    return [
        f"{result['videos']} videos of {result['source_s']:.0f} s together{rejected}",
        stages,
        f"outside the stages (planning, starting tasks): {result['outside_stages']:.1%} of a lone worker's time",
        f"two workers: {result['two_workers_over_one']:.2f} times as fast as one, sharing {result['shards']} shards "
        "(few cannot be shared evenly)",
        f"with two workers: {result['videos_per_s']:.2f} videos/s, {result['flow_pairs_per_s']:.0f} flow pairs/s",
        f"TV-L1, a pair on one core: ours {milliseconds['ours']:.1f} ms, OpenCV's {milliseconds['opencv']:.1f} ms",
        hours,
        "assumed:",
        *(f"  {sentence}" for sentence in result["assumptions"]),
    ]
