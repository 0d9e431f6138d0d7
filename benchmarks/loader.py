"""The loader on a user's videos, compared with what a user would choose instead and with bare DALI: clips/s per core.

ours          train_loader on a dataset created from the videos in a temporary folder (in TMPDIR)
pyav          a torch DataLoader that seeks and decodes in the videos
opencv_video  the same with OpenCV's VideoCapture
torchcodec    the same with torchcodec, if it is installed
opencv        a torch DataLoader that decodes the JPEGs of our shards with OpenCV
dali          DALI alone, with input from memory, without drawing clips, reading or checking bytes: the maximum speed

All load the clips of the same clip order: 16 frames, cropped, mirrored, float32; then 128 frames, and flow. Each runs
in a child process, which is started again in every round and pinned to one core with all its threads and children. They
run in turn, and a ratio is the median of the rounds' ratios. The time in which other processes used the core does not
count. Everything that is read is in the page cache.

Claims: 8 times as fast as PyAV, 4 times as fast as the fastest reader of videos, 1.3 times as fast as OpenCV for flow,
85% of the speed of bare DALI, and a mean error below 1 of 255 compared with OpenCV's decoder.
"""

import contextlib
import dataclasses
import importlib.util
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.table import Column, Table

from lgd.benchmarks.claims import ClaimsResult
from lgd.benchmarks.isolated import run_isolated
from lgd.benchmarks.loader_child import Case, LoaderJob, encode_job
from lgd.benchmarks.loader_claims import claims_not_met
from lgd.benchmarks.preprocess import select_videos
from lgd.benchmarks.video_readers import READERS, TORCHCODEC_MISSING, ffmpeg_for_torchcodec
from lgd.clusters.embedded import ensure_cluster
from lgd.pipeline.console.command_line import Line
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.loading.transform import Transform
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.job import preprocess
from lgd.preprocessing.settings import PreprocessResources, Settings

CASES = {"frames16": Case("rgb", 16, 16), "frames128": Case("rgb", 128, 2), "flow": Case("flow", 16, 16)}
LOADERS = ("ours", *READERS, "opencv", "dali")
VIDEO_BATCH = 2  # clips: decoding videos is slow
ERROR_CLIPS = 32  # on which the mean error is measured

MAX_TAKEN_SHARE = 0.1  # share of the time in which other processes may use the core without a warning

Round = dict[str, dict[str, dict[str, dict[str, float]]]]  # loader -> case -> variant -> numbers of `loader_child`


@dataclass(frozen=True, kw_only=True)
class CaseNumbers:
    """Numbers of one case, medians over the rounds."""

    clips_per_s_per_core: dict[str, float]
    """Clips per second on one core by loader."""
    ratios: dict[str, float]
    """Our speed divided by that of each other loader: ours_over_pyav and so on."""
    dataloader: dict[str, str]
    """The faster number of workers of each torch DataLoader, by loader."""
    taken_share: dict[str, float]
    """Fraction of the time in which other processes used the core, by loader."""


@dataclass(frozen=True, kw_only=True)
class FlowNumbers(CaseNumbers):
    """Numbers of the clips of flow, medians over the rounds."""

    mean_error_of_255: float
    """Mean absolute difference from OpenCV's decoder, of 255."""


@dataclass(frozen=True)
class S3Numbers:
    """Our loader with the dataset on an S3 server on this machine, medians over the rounds."""

    clips_per_s_per_core: float
    """Clips per second on one core."""
    ratio_to_local: float
    """Speed divided by that with a local folder."""


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark(CaseNumbers, ClaimsResult):
    """Result of `lgd bench loader`. The numbers at the top level are those of 16 frames of rgb."""

    videos: int
    """Number of videos in the dataset."""
    codecs: dict[str, int]
    """Number of videos by codec."""
    short_side: int
    """Short side of the frames, pixels."""
    crop: int
    """Side of the square crop, pixels."""
    rounds: int
    """Number of rounds."""
    mean_error_of_255: float
    """Mean absolute difference from OpenCV's decoder, of 255."""
    bytes_read_per_byte_used: float
    """Bytes that our loader reads, divided by the bytes of the frames that it uses."""
    frames128: CaseNumbers
    """Numbers of clips of 128 frames of rgb."""
    flow: FlowNumbers
    """Numbers of clips of 16 frames of flow."""
    s3: S3Numbers | None
    """Numbers with the dataset on an S3 server; only if measured."""

    not_measured: str | None = None
    """Why torchcodec was not measured; only if it was not."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("s3", "not_measured")

    def lines(self) -> list[Line]:
        columns = (Column(name, justify="right") for name in LOADERS)
        table = Table(f"clips/s on one core, {self.crop} x {self.crop}", *columns)
        over = Table("ours is x times as fast as", *(Column(name, justify="right") for name in LOADERS[1:]))
        titles: dict[str, CaseNumbers] = {"16 frames": self, "128 frames": self.frames128, "flow, 16 frames": self.flow}
        for title, numbers in titles.items():
            speeds = numbers.clips_per_s_per_core
            table.add_row(title, *(f"{speeds[name]:.1f}" if name in speeds else "" for name in LOADERS))
            ratios = [numbers.ratios.get(f"ours_over_{name}") for name in LOADERS[1:]]
            over.add_row(title, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
        codecs = ", ".join(f"{count} {codec}" for codec, count in self.codecs.items())
        lines: list[Line] = [f"{self.videos} videos ({codecs}), short side {self.short_side}", table, over]
        if self.s3 is not None:
            lines.append(
                f"from an S3 server on this machine: {self.s3.clips_per_s_per_core:.1f} clips/s, "
                f"{self.s3.ratio_to_local:.2f} times the local speed (the server is a slow one for tests)"
            )
        lines += [
            f"bytes read per byte used: {self.bytes_read_per_byte_used:.3f}",
            f"mean error compared with OpenCV's decoder, of 255: RGB {self.mean_error_of_255:.3f}, "
            f"flow {self.flow.mean_error_of_255:.3f}",
            "torch DataLoader, the faster of 0 and 1 workers: "
            + ", ".join(f"{name} {variant}" for name, variant in self.dataloader.items()),
        ]
        if self.not_measured is not None:
            lines.append(self.not_measured)
        if (taken := max(self.taken_share.values())) > MAX_TAKEN_SHARE:
            lines.append(
                f"warning: other processes used the core, and its caches, for up to {taken:.0%} of the time: measure "
                "again on an idle machine"
            )
        return lines


def run(
    videos: Path, short_side: int, limit: int, *, rounds: int, seconds: float, s3: bool, crop: int = Transform().crop
) -> LoaderBenchmark:
    """Run the benchmark.

    videos: a folder of class folders. limit: number of its videos to use, evenly chosen. short_side, crop: pixels.
    seconds: minimum time of measuring each loader in each case and round. s3: measure with the dataset on an S3 server
    as well. Raises UserError for a folder without usable videos, and if a package is missing."""
    if importlib.util.find_spec("av") is None:
        raise UserError("this benchmark needs PyAV, which is not installed: pip install av")
    with tempfile.TemporaryDirectory(prefix="lgd-bench-") as folder, contextlib.ExitStack() as stack:
        dataset = prepare(videos, folder, short_side, limit=limit)
        stack.enter_context(ffmpeg_for_torchcodec())
        loaders, not_measured = list(LOADERS), None
        datasets = dict.fromkeys(LOADERS, folder)
        if s3:
            from lgd.clusters.testbed.s3_server import s3_copy

            datasets["s3"] = stack.enter_context(s3_copy(folder, _other_cores()))
            loaders.append("s3")
        measured: list[Round] = []
        for number in range(rounds):
            by_loader: Round = {}
            for loader in tuple(loaders):
                job = job_of(
                    loader, datasets[loader], videos, short_side=short_side, crop=crop, seconds=seconds, dataset=dataset
                )
                try:
                    by_loader[loader] = measure(job)
                except UserError as error:
                    if loader != "torchcodec" or number:
                        raise
                    installed = importlib.util.find_spec("torchcodec") is not None
                    not_measured = f"{TORCHCODEC_MISSING} ({error})" if installed else TORCHCODEC_MISSING
                    say(not_measured)
                    loaders.remove(loader)
                    continue
                speed = max(numbers["clips_per_s"] for numbers in by_loader[loader]["frames16"].values())
                say(f"round {number + 1} of {rounds}, {loader}: {speed:.1f} clips/s")
            measured.append(by_loader)
        errors = {stream: mean_error(dataset, stream, crop) for stream in ("rgb", "flow")}
        return summarize(
            measured,
            errors,
            videos=dataset.summary["videos"],
            codecs=count_codecs(videos, dataset),
            short_side=short_side,
            crop=crop,
            not_measured=not_measured,
        )


def prepare(videos: Path, out: str, short_side: int, *, limit: int) -> Dataset:
    """Create a dataset of some of the videos, all in one split. Stop its cluster, which would slow the loaders down."""
    manifest = select_videos(read_manifest(videos), limit)
    say(f"preprocessing {len(manifest.videos)} videos")
    settings = Settings(short_side=short_side)
    result = preprocess(
        Storage(videos),
        out,
        manifest,
        streams=("rgb", "flow"),
        settings=settings,
        resources=PreprocessResources(),
        start_cluster=ensure_cluster,
    )
    import ray

    ray.shutdown()
    if not result.videos:
        raise UserError(f"none of the {len(manifest.videos)} videos in {videos} can be decoded")
    return open_dataset(out)


def count_codecs(videos: Path, dataset: Dataset) -> dict[str, int]:
    """Return codec -> number of videos, the most frequent first."""
    import av

    counts: Counter[str] = Counter()
    for path in dataset.videos(["path"]).column("path").to_pylist():
        with av.open(str(videos / path)) as container:
            counts[container.streams.video[0].codec_context.name] += 1
    return dict(counts.most_common())


def job_of(
    loader: str, folder: str, videos: Path, *, short_side: int, crop: int, seconds: float, dataset: Dataset
) -> LoaderJob:
    """Return the job of a loader. It loads at least one clip of every video, because their costs differ."""
    cases = CASES
    if loader in READERS:
        rgb = {name: case for name, case in CASES.items() if case.stream == "rgb"}  # videos do not contain their flow
        cases = {name: dataclasses.replace(case, batch=VIDEO_BATCH) for name, case in rgb.items()}
    elif loader == "s3":
        loader, cases = "ours", {"frames16": CASES["frames16"]}
    return LoaderJob(loader, folder, str(videos), cases, short_side, crop, seconds, clips=dataset.summary["videos"])


def measure(job: LoaderJob) -> dict[str, dict[str, dict[str, float]]]:
    """Run a job in a child process on the last core; return case -> variant -> numbers (see `loader_child`).

    Raises UserError if the process fails."""
    last_core = {max(os.sched_getaffinity(0))}
    numbers: dict[str, dict[str, dict[str, float]]] = run_isolated(
        "lgd.benchmarks.loader_child", encode_job(job), name=job.loader, cores=last_core
    )
    return numbers


def _other_cores() -> set[int]:
    """Return all cores except the last one, which the loaders use."""
    cores = os.sched_getaffinity(0)
    return cores - {max(cores)} or cores


def mean_error(dataset: Dataset, stream: str, crop: int) -> float:
    """Return the mean absolute difference of our pixels from OpenCV's for the same clips, of 255."""
    import torch

    from lgd.benchmarks.loader_baselines import ShardClips
    from lgd.pipeline.loading.loader import train_loader

    transform, batch = Transform(crop=crop), 8
    clips = ShardClips(dataset.storage.address, stream, CASES["frames16"].frames, transform=transform)
    std = torch.tensor(transform.std).view(3, 1, 1, 1) if stream == "rgb" else transform.flow_std
    errors = []
    for loaded in train_loader(dataset, stream, batch, steps=range(ERROR_CLIPS // batch), transform=transform):
        for video, position in zip(loaded.video, loaded.position, strict=True):
            errors.append(float(((video - clips[position]) * std).abs().mean()))
    return statistics.mean(errors)


def summarize(
    rounds: Sequence[Round],
    errors: Mapping[str, float],
    *,
    videos: int,
    codecs: dict[str, int],
    short_side: int,
    crop: int,
    not_measured: str | None = None,
) -> LoaderBenchmark:
    """Compute all numbers. errors: mean errors by stream. codecs: number of videos by codec. not_measured: why
    torchcodec was not measured."""
    by_case = {name: case_numbers(rounds, name) for name in CASES}
    ours = [by_loader["ours"]["frames16"]["ours"] for by_loader in rounds]
    read, used = (sum(numbers[count] for numbers in ours) for count in ("bytes_read", "bytes_used"))
    s3 = None
    if "s3" in rounds[0]:
        speeds = [by_loader["s3"]["frames16"]["ours"]["clips_per_s"] for by_loader in rounds]
        ratios = [remote / local["clips_per_s"] for remote, local in zip(speeds, ours, strict=True)]
        s3 = S3Numbers(statistics.median(speeds), statistics.median(ratios))
    return LoaderBenchmark(
        videos=videos,
        codecs=codecs,
        short_side=short_side,
        crop=crop,
        rounds=len(rounds),
        **vars(by_case["frames16"]),
        mean_error_of_255=errors["rgb"],
        bytes_read_per_byte_used=read / used,
        frames128=by_case["frames128"],
        flow=FlowNumbers(**vars(by_case["flow"]), mean_error_of_255=errors["flow"]),
        s3=s3,
        claims_not_met=claims_not_met(by_case["frames16"].ratios, by_case["flow"].ratios, errors["rgb"]),
        not_measured=not_measured,
    )


def case_numbers(rounds: Sequence[Round], case: str) -> CaseNumbers:
    """Return the medians over the rounds, of each loader in its faster variant."""
    series: dict[str, list[float]] = {}
    variants, taken = {}, {}
    for loader in (name for name in LOADERS if case in rounds[0].get(name, {})):
        numbers = {
            variant: [by_loader[loader][case][variant] for by_loader in rounds] for variant in rounds[0][loader][case]
        }
        speeds = {variant: [one["clips_per_s"] for one in numbers[variant]] for variant in numbers}
        fastest = max(speeds, key=lambda variant: statistics.median(speeds[variant]))
        variants[loader], series[loader] = fastest, speeds[fastest]
        taken[loader] = statistics.median(one["taken_share"] for one in numbers[fastest])
    return CaseNumbers(
        clips_per_s_per_core={loader: statistics.median(speeds) for loader, speeds in series.items()},
        ratios={
            f"ours_over_{loader}": statistics.median(
                ours / other for ours, other in zip(series["ours"], speeds, strict=True)
            )
            for loader, speeds in series.items()
            if loader != "ours"
        },
        dataloader={loader: variant for loader, variant in variants.items() if loader not in ("ours", "dali")},
        taken_share=taken,
    )
