"""The preprocessing job on a user's videos: time by stage, the speed-up by a second worker, the cost of Kinetics.

The actual job creates a dataset in a temporary folder (in TMPDIR), with one and with two workers in alternating order,
on one embedded cluster that is already warm. Stages, speeds and costs are measured in worker time; a worker uses one
core. The job measures decoding as one stage, because one ffmpeg process starts, decodes, resizes and writes to a pipe:
the shares of these parts are those of the processor time of a sample of the videos (`decoding`). On that sample
OpenCV's TV-L1 also computes a few pairs, so that the projection can compare both solvers on this machine.

A single worker keeps more than one core busy: ffmpeg decodes while Python reads, and Ray works. So two workers on two
cores cannot be twice as fast as one; the cores that are busy with one worker are printed, and the limit that follows.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.table import Column, Table

from lgd.benchmarks.decoding import PARTS, DecodeCost, decode_cost
from lgd.clusters.embedded import ensure_cluster
from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.flow.tvl1 import compute_flow, warm_up
from lgd.preprocessing.job import preprocess
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.preprocessing.video.rejections import Rejected

WARM_UP_VIDEOS = 5  # two shards: one for each worker
SAMPLE_VIDEOS, SAMPLE_PAIRS, SAMPLE_TIMES = 6, 4, 3


@dataclass(frozen=True)
class Collection:
    """A collection of clips whose cost is projected: the number of clips listed in each split."""

    train: int
    val: int

    @property
    def clips(self) -> int:
        return self.train + self.val


CLIP_S = 10.0  # length of a clip of Kinetics
KINETICS: Mapping[str, Collection] = {
    # Train: 306,245 clips minus 50 val and 100 test clips for each of the 400 classes (Kay et al., "The Kinetics Human
    # Action Video Dataset", 2017). Val: rows of the published list.
    "kinetics400": Collection(train=246_245, val=19_906),
    # Train: Carreira et al., "A Short Note about Kinetics-600", 2018. Val: rows of the published list.
    "kinetics600": Collection(train=392_622, val=30_000),
}


@dataclass(frozen=True)
class JobRun:
    """One run of the job. wall_s: of all tasks. seconds: stage of the job -> worker time. busy_s: processor time of the
    whole machine in these tasks and around them."""

    workers: int
    wall_s: float
    seconds: Mapping[str, float]
    busy_s: float


@dataclass(frozen=True)
class Output:
    """What every run of the job creates: shards, videos and frames of the dataset; and how many videos it rejects."""

    shards: int
    videos: int
    frames: int
    rejected: int

    @property
    def flow_pairs(self) -> int:
        return self.frames - self.videos


@dataclass(frozen=True)
class Sample:
    """Measurements on a few videos, alone on one core.

    decode_parts: part of `DecodeCost` -> its fraction of the job's decode stage. opencv_s, ours_s: seconds of TV-L1 per
    pair."""

    videos: int
    decode_parts: Mapping[str, float]
    opencv_s: float
    ours_s: float


@dataclass(frozen=True)
class SolverMilliseconds:
    """Milliseconds of TV-L1 per pair on one core."""

    ours: float
    """Our solver, milliseconds per pair."""
    opencv: float
    """OpenCV's solver, milliseconds per pair."""


@dataclass(frozen=True)
class CoreHours:
    """Projected core-hours to preprocess a collection of clips."""

    clips: int
    """Number of clips in the collection."""
    ours: float
    """Core-hours with our TV-L1."""
    with_opencv_tvl1: float
    """Core-hours with OpenCV's TV-L1."""


@dataclass(frozen=True)
class PreprocessBenchmark(CommandResult):
    """Result of `lgd bench preprocess`."""

    videos: int
    """Number of videos in the dataset that each run creates."""
    rejected: int
    """Number of rejected videos."""
    shards: int
    """Number of shards in the dataset."""
    source_s: float
    """Duration of all videos together, seconds."""
    short_side: int
    """Short side of the frames, pixels."""
    stages: dict[str, float]
    """Fraction of the worker time by stage; start, decode, resize and pipe are the parts of decoding."""
    decode_and_flow: float
    """Fraction of the worker time of start, decode, resize, pipe and flow together."""
    outside_stages: float
    """Fraction of a single worker's wall time that is outside the stages."""
    two_workers_over_one: float
    """How many times as fast two workers are as one."""
    busy_cores: float
    """Number of cores that are busy while one worker works, with everything else on the machine."""
    max_two_over_one: float
    """Maximum of two_workers_over_one that the cores of the machine allow."""
    wall_s: dict[str, list[float]]
    """Time of each run by number of workers, seconds."""
    videos_per_s: float
    """Videos per second with two workers."""
    flow_pairs_per_s: float
    """Frame pairs per second with two workers."""
    worker_s_a_source_s: float
    """Worker time per second of video, seconds."""
    tvl1_ms: SolverMilliseconds
    """Time of TV-L1 per pair on one core."""
    core_hours: dict[str, CoreHours]
    """Projected cost by collection of clips."""
    assumptions: list[str]
    """Assumptions of the projection, one sentence each."""

    def lines(self) -> list[Line]:
        stages = Table("worker time", Column("share", justify="right"))
        for stage, share in self.stages.items():
            stages.add_row(stage, f"{share:.1%}")
        stages.add_section()
        stages.add_row("decoding and flow", f"{self.decode_and_flow:.1%}")
        columns = (Column(title, justify="right") for title in ("clips", "ours", "with OpenCV's TV-L1"))
        hours = Table("core-hours", *columns)
        for name, row in self.core_hours.items():
            hours.add_row(name, f"{row.clips:,}", f"{row.ours:,.0f}", f"{row.with_opencv_tvl1:,.0f}")
        rejected = f", {self.rejected} rejected" if self.rejected else ""
        return [
            f"{self.videos} videos, {self.source_s:.0f} s in total{rejected}",
            stages,
            f"outside the stages (planning, starting tasks): {self.outside_stages:.1%} of the time of a single worker",
            f"two workers: {self.two_workers_over_one:.2f} times as fast as one, on {self.shards} shards (a small "
            f"number of shards cannot be divided evenly); with one worker {self.busy_cores:.2f} cores are busy, so it "
            f"cannot be more than {self.max_two_over_one:.2f}",
            f"with two workers: {self.videos_per_s:.2f} videos/s, {self.flow_pairs_per_s:.0f} flow pairs/s",
            f"TV-L1 per pair, one core: ours {self.tvl1_ms.ours:.1f} ms, OpenCV's {self.tvl1_ms.opencv:.1f} ms",
            hours,
            "assumptions:",
            *(f"  {sentence}" for sentence in self.assumptions),
        ]


def run(videos: Path, settings: Settings, limit: int, *, rounds: int) -> PreprocessBenchmark:
    """Run the benchmark.

    videos: a folder of class folders. limit: number of its videos to use, evenly chosen. rounds: runs of the job with
    one worker, and as many with two. Raises UserError for a folder without videos, and if no video can be decoded."""
    manifest = select_videos(read_manifest(videos), limit)
    say(f"starting and warming up a cluster; then {rounds} rounds on {len(manifest.videos)} videos")
    ensure_cluster(2)
    run_job(videos, select_videos(manifest, WARM_UP_VIDEOS), settings, workers=2)
    runs = []
    for number in range(rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            job_run, output = run_job(videos, manifest, settings, workers=workers)
            if output.videos == 0:
                raise UserError(f"none of the {len(manifest.videos)} videos in {videos} can be decoded")
            runs.append(job_run)
            say(f"round {number + 1} of {rounds}, workers {workers}: {job_run.wall_s:.1f} s")
    sample = measure_sample([videos / video.path for video in select_videos(manifest, SAMPLE_VIDEOS).videos], settings)
    return summarize(runs, output, sample, settings=settings)


def select_videos(manifest: Manifest, count: int) -> Manifest:
    """Return `count` evenly chosen videos, all in one split, so that they fill few shards of equal size."""
    selected = [manifest.videos[i] for i in evenly_spaced(len(manifest.videos), count)]
    return Manifest(tuple(dataclasses.replace(video, split="train") for video in selected), manifest.classes)


def run_job(videos: Path, manifest: Manifest, settings: Settings, *, workers: int) -> tuple[JobRun, Output]:
    """Run the job on the existing cluster; its dataset is deleted."""
    with tempfile.TemporaryDirectory(prefix="lgd-bench-") as folder:
        busy_before = machine_busy_s()
        out = str(Path(folder) / "data")
        result = preprocess(
            Storage(videos),
            out,
            manifest,
            streams=("rgb", "flow"),
            settings=settings,
            resources=PreprocessResources(num_workers=workers),
            start_cluster=ensure_cluster,
        )
        busy_s = machine_busy_s() - busy_before
        frames = open_dataset(out).summary["frames"]
    output = Output(result.shards_made, result.videos, frames, result.rejected)
    return JobRun(workers, result.work_s, result.seconds, busy_s), output


def machine_busy_s() -> float:
    """Return the processor time that all processes of this machine have used since it started, seconds."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def measure_sample(paths: Sequence[Path], settings: Settings) -> Sample:
    """Measure a few videos on one core, without those that cannot be decoded. Raises UserError if none can."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    costs: list[DecodeCost] = []
    flow_s = {"opencv": 0.0, settings.flow.backend: 0.0}
    pairs = 0
    warm_up(settings.flow.backend)
    try:
        for path in paths:
            try:
                rgb, cost = decode_cost(path, settings)
            except Rejected:
                continue  # the job counts it as rejected
            costs.append(cost)
            middle = max(len(rgb) // 2 - SAMPLE_PAIRS, 0)
            sample = rgb[middle : middle + SAMPLE_PAIRS + 1]
            gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in sample])
            for backend in flow_s:
                start = time.perf_counter()
                compute_flow(gray, settings.flow.tvl1, backend)
                flow_s[backend] += time.perf_counter() - start
            pairs += len(gray) - 1
    finally:
        cv2.setNumThreads(threads)
    if not costs:
        raise UserError(f"none of the {len(paths)} sampled videos can be decoded: choose more videos with --limit")
    seconds = {part: sum(getattr(cost, part) for cost in costs) for part in PARTS}
    shares = {part: value / sum(seconds.values()) for part, value in seconds.items()}
    return Sample(len(costs), shares, flow_s["opencv"] / pairs, flow_s[settings.flow.backend] / pairs)


def summarize(runs: Sequence[JobRun], output: Output, sample: Sample, *, settings: Settings) -> PreprocessBenchmark:
    """Compute all numbers. Stages and costs come from the runs with one worker, which share the core with nothing."""
    single = [run for run in runs if run.workers == 1]
    walls = {workers: [run.wall_s for run in runs if run.workers == workers] for workers in (1, 2)}
    seconds = {stage: sum(run.seconds[stage] for run in single) for stage in ("decode", "flow", "jpeg", "write")}
    total = sum(seconds.values())
    decode_s = seconds.pop("decode")
    seconds = {part: decode_s * share for part, share in sample.decode_parts.items()} | seconds
    stages = {stage: value / total for stage, value in seconds.items()}
    two_over_one = statistics.median(one / two for one, two in zip(walls[1], walls[2], strict=True))
    busy_cores = statistics.median(run.busy_s / run.wall_s for run in single)
    source_s = output.frames / settings.fps
    cost = total / len(single) / source_s
    # With OpenCV's solver everything except the flow costs the same.
    cost_with_opencv = cost + (sample.opencv_s - sample.ours_s) * output.flow_pairs / source_s
    hours = {name: collection.clips * CLIP_S / 3600 for name, collection in KINETICS.items()}
    return PreprocessBenchmark(
        videos=output.videos,
        rejected=output.rejected,
        shards=output.shards,
        source_s=source_s,
        short_side=settings.short_side,
        stages=stages,
        decode_and_flow=sum(stages[part] for part in (*PARTS, "flow")),
        outside_stages=1 - total / sum(walls[1]),
        two_workers_over_one=two_over_one,
        busy_cores=busy_cores,
        max_two_over_one=min((os.cpu_count() or 1) / busy_cores, 2.0),
        wall_s={"1": walls[1], "2": walls[2]},
        videos_per_s=output.videos / statistics.median(walls[2]),
        flow_pairs_per_s=output.flow_pairs / statistics.median(walls[2]),
        worker_s_a_source_s=cost,
        tvl1_ms=SolverMilliseconds(ours=1e3 * sample.ours_s, opencv=1e3 * sample.opencv_s),
        core_hours={
            name: CoreHours(collection.clips, cost * hours[name], cost_with_opencv * hours[name])
            for name, collection in KINETICS.items()
        },
        assumptions=_assumptions(output, sample, settings, two_over_one=two_over_one),
    )


def _assumptions(output: Output, sample: Sample, settings: Settings, *, two_over_one: float) -> list[str]:
    """Return the assumptions of the projection, one sentence each."""
    return [
        *(
            f"{name} has {collection.train:,} train + {collection.val:,} val clips of {CLIP_S:g} s"
            for name, collection in KINETICS.items()
        ),
        f"{settings.fps:g} frames per second, short side {settings.short_side}, streams rgb and flow",
        f"a second of Kinetics costs as much as a second of these {output.videos} videos (same codec, size and motion)",
        f"a worker uses one core, and workers do not slow each other down (here two are {two_over_one:.2f} times as "
        "fast as one)",
        f"with OpenCV's TV-L1 only the solver costs more; both were measured on {sample.videos} videos on one core",
    ]
