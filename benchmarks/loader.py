"""The loader on a user's videos, beside what would be used in its place, and beside bare DALI: clips a second and core.

ours     train_loader on a dataset that is made of the videos in a temporary folder (TMPDIR says where)
pyav     a torch DataLoader that seeks and decodes in the videos themselves
opencv   a torch DataLoader that decodes our shards' JPEGs by OpenCV
dali     DALI alone, fed from memory without drawing, reading or checking anything: the ceiling

All make the clips of one clip order: 16 frames, cropped, mirrored, float32; then 128 frames, and flow. Each runs in a
process of its own, started anew every round and pinned to one core with all its threads and children; they take turns,
and a ratio is the median of the rounds' ratios. Seconds in which something else had the core do not count. Everything
that is read lies in the page cache.

Claimed are 8 times PyAV's speed, 85 % of bare DALI's, and a mean error below 1 of 255 against OpenCV's decoder.
"""

import contextlib
import dataclasses
import importlib.util
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from lgd.benchmarks.isolated import run_isolated
from lgd.benchmarks.loader_child import Case, LoaderJob, encoded
from lgd.benchmarks.preprocess import chosen
from lgd.clusters.embedded import ensure_cluster
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.loading.transform import Transform
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.job import preprocess
from lgd.preprocessing.settings import PreprocessResources, Settings

CASES = {"frames16": Case("rgb", 16, 16), "frames128": Case("rgb", 128, 2), "flow": Case("flow", 16, 16)}
LOADERS = ("ours", "pyav", "opencv", "dali")
PYAV_BATCH = 2  # clips: a decoded video takes long
ERROR_CLIPS = 32

MIN_OVER_PYAV = 8.0
MIN_OVER_DALI = 0.85
MAX_ERROR = 1.0  # mean, of 255
DISTURBED = 0.1  # share of the time

Round = dict[str, dict[str, dict[str, dict[str, float]]]]  # by loader, case and way of loading


def run(
    videos: Path, short_side: int, limit: int, *, rounds: int, seconds: float, s3: bool, crop: int = Transform().crop
) -> dict[str, Any]:
    """Measures everything; returns it as one JSON document.

    videos: a folder of class folders; limit: how many of its videos, evenly chosen. short_side, crop: pixels.
    seconds: of measuring each loader in each case and round, at least. s3: also with the dataset in an S3 server.
    Raises UserError for a folder without usable videos, and where a package is missing."""
    if importlib.util.find_spec("av") is None:
        raise UserError("PyAV, which is measured beside ours, is not installed: pip install av")
    with tempfile.TemporaryDirectory(prefix="lgd-bench-") as folder, contextlib.ExitStack() as stack:
        dataset = prepare(videos, folder, short_side, limit=limit)
        loaders = list(LOADERS)
        datasets = dict.fromkeys(LOADERS, folder)
        if s3:
            from lgd.clusters.testbed.s3_server import s3_copy

            datasets["s3"] = stack.enter_context(s3_copy(folder, _other_cores()))
            loaders.append("s3")
        measured: list[Round] = []
        for number in range(rounds):
            done: Round = {}
            for loader in loaders:
                job = job_of(
                    loader, datasets[loader], videos, short_side=short_side, crop=crop, seconds=seconds, dataset=dataset
                )
                done[loader] = measure_apart(job)
                speed = max(way["clips_per_s"] for way in done[loader]["frames16"].values())
                say(f"round {number + 1} of {rounds}, {loader}: {speed:.1f} clips/s")
            measured.append(done)
        about = {
            "videos": dataset.summary["videos"],
            "codecs": codecs(videos, dataset),
            "short_side": short_side,
            "crop": crop,
            "rounds": rounds,
        }
        errors = {stream: mean_error(dataset, stream, crop) for stream in ("rgb", "flow")}
    return document(about, measured, errors)


def prepare(videos: Path, out: str, short_side: int, *, limit: int) -> Dataset:
    """A dataset of some of the videos, all in one split. Its cluster is gone afterwards: it would take time."""
    manifest = chosen(read_manifest(videos), limit)
    say(f"preprocessing {len(manifest.videos)} videos")
    settings = Settings(short_side=short_side)
    outcome = preprocess(
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
    if not outcome.videos:
        raise UserError(f"none of {len(manifest.videos)} videos of {videos} can be decoded")
    return open_dataset(out)


def codecs(videos: Path, dataset: Dataset) -> dict[str, int]:
    """How many of the videos are of which codec."""
    import av

    found: Counter[str] = Counter()
    for path in dataset.videos(["path"]).column("path").to_pylist():
        with av.open(str(videos / path)) as container:
            found[container.streams.video[0].codec_context.name] += 1
    return dict(found.most_common())


def job_of(
    loader: str, folder: str, videos: Path, *, short_side: int, crop: int, seconds: float, dataset: Dataset
) -> LoaderJob:
    """At least one clip of every video: they differ in what they cost."""
    cases = CASES
    if loader == "pyav":
        rgb = {name: case for name, case in CASES.items() if case.stream == "rgb"}  # no video holds its flow
        cases = {name: dataclasses.replace(case, batch=PYAV_BATCH) for name, case in rgb.items()}
    elif loader == "s3":
        loader, cases = "ours", {"frames16": CASES["frames16"]}
    return LoaderJob(loader, folder, str(videos), cases, short_side, crop, seconds, clips=dataset.summary["videos"])


def measure_apart(job: LoaderJob) -> dict[str, dict[str, dict[str, float]]]:
    """In a process that has one core from its start, the last of those that there are.

    Raises UserError with what it said last where it fails."""
    last_core = {max(os.sched_getaffinity(0))}
    return run_isolated("lgd.benchmarks.loader_child", encoded(job), what=job.loader, cores=last_core)


def _other_cores() -> set[int]:
    cores = os.sched_getaffinity(0)
    return cores - {max(cores)} or cores


def mean_error(dataset: Dataset, stream: str, crop: int) -> float:
    """Mean absolute difference of ours from OpenCV's decode of the same clips, of 255."""
    import torch

    from lgd.benchmarks.loader_rivals import ShardClips
    from lgd.pipeline.loading.loader import train_loader

    transform, batch = Transform(crop=crop), 8
    clips = ShardClips(dataset.storage.address, stream, CASES["frames16"].frames, transform=transform)
    std = torch.tensor(transform.std).view(3, 1, 1, 1) if stream == "rgb" else transform.flow_std
    errors = []
    for loaded in train_loader(dataset, stream, batch, steps=range(ERROR_CLIPS // batch), transform=transform):
        for video, position in zip(loaded.video, loaded.position, strict=True):
            errors.append(((video - clips[position]) * std).abs().mean().item())
    return statistics.mean(errors)


def document(about: dict[str, Any], rounds: Sequence[Round], errors: dict[str, float]) -> dict[str, Any]:
    """All numbers; errors: by stream."""
    by_case = {name: case_numbers(rounds, name) for name in CASES}
    ours = [done["ours"]["frames16"]["ours"] for done in rounds]
    read, used = (sum(way[count] for way in ours) for count in ("bytes_read", "bytes_used"))
    result = {
        **about,
        **by_case["frames16"],
        "mean_error_of_255": errors["rgb"],
        "bytes_read_per_byte_used": read / used,
        "frames128": by_case["frames128"],
        "flow": {**by_case["flow"], "mean_error_of_255": errors["flow"]},
    }
    if "s3" in rounds[0]:
        speeds = [done["s3"]["frames16"]["ours"]["clips_per_s"] for done in rounds]
        result["s3"] = {
            "clips_per_s_per_core": statistics.median(speeds),
            "ratio_to_local": statistics.median(
                far / near["clips_per_s"] for far, near in zip(speeds, ours, strict=True)
            ),
        }
    result["failed"] = broken_claims(result)
    return result


def case_numbers(rounds: Sequence[Round], case: str) -> dict[str, Any]:
    """Medians over the rounds, of each loader in the way that is its faster one."""
    series: dict[str, list[float]] = {}
    ways, taken = {}, {}
    for loader in (name for name in LOADERS if case in rounds[0][name]):
        of = {way: [done[loader][case][way] for done in rounds] for way in rounds[0][loader][case]}
        speeds = {way: [one["clips_per_s"] for one in of[way]] for way in of}
        ways[loader] = max(speeds, key=lambda way: statistics.median(speeds[way]))
        series[loader] = speeds[ways[loader]]
        taken[loader] = statistics.median(one["taken_share"] for one in of[ways[loader]])
    return {
        "clips_per_s_per_core": {loader: statistics.median(speeds) for loader, speeds in series.items()},
        "ratios": {
            f"ours_over_{loader}": statistics.median(
                mine / theirs for mine, theirs in zip(series["ours"], speeds, strict=True)
            )
            for loader, speeds in series.items()
            if loader != "ours"
        },
        "dataloader": {loader: way for loader, way in ways.items() if loader in ("pyav", "opencv")},
        "taken_share": taken,
    }


def broken_claims(result: dict[str, Any]) -> list[str]:
    """What of the claims does not hold, on 16-frame RGB clips."""
    ratios, broken = result["ratios"], []
    if ratios["ours_over_pyav"] < MIN_OVER_PYAV:
        broken.append(f"{ratios['ours_over_pyav']:.1f} times PyAV's speed, not {MIN_OVER_PYAV:g}")
    if ratios["ours_over_dali"] < MIN_OVER_DALI:
        broken.append(f"{ratios['ours_over_dali']:.0%} of bare DALI's speed, not {MIN_OVER_DALI:.0%}")
    if result["mean_error_of_255"] >= MAX_ERROR:
        broken.append(f"mean error {result['mean_error_of_255']:.2f} of 255 against OpenCV's decoder")
    return broken


def report(result: dict[str, Any]) -> list[Any]:
    """The result of run() for people: lines and tables."""
    crop = result["crop"]
    table = Table(f"clips/s on one core, {crop} x {crop}", *(Column(name, justify="right") for name in LOADERS))
    over = Table("ours over", *(Column(name, justify="right") for name in LOADERS[1:]))
    titles = {"16 frames": result, "128 frames": result["frames128"], "flow, 16 frames": result["flow"]}
    for title, numbers in titles.items():
        speeds, ratios = numbers["clips_per_s_per_core"], numbers["ratios"]
        table.add_row(title, *(f"{speeds[name]:.1f}" if name in speeds else "" for name in LOADERS))
        ratio = [ratios.get(f"ours_over_{name}") for name in LOADERS[1:]]
        over.add_row(title, *("" if one is None else f"{one:.2f}" for one in ratio))
    kinds = ", ".join(f"{count} {codec}" for codec, count in result["codecs"].items())
    lines: list[Any] = [f"{result['videos']} videos ({kinds}), short side {result['short_side']}", table, over]
    if "s3" in result:
        s3 = result["s3"]
        lines.append(
            f"from an S3 server on this machine: {s3['clips_per_s_per_core']:.1f} clips/s, {s3['ratio_to_local']:.2f} "
            "times the local speed (the server is a slow one, for tests)"
        )
    lines += [
        f"bytes read for each byte used: {result['bytes_read_per_byte_used']:.3f}",
        f"mean error against OpenCV's decoder, of 255: RGB {result['mean_error_of_255']:.3f}, flow "
        f"{result['flow']['mean_error_of_255']:.3f}",
        "torch DataLoader, the better of 0 and 1: "
        + ", ".join(f"{n} {way}" for n, way in result["dataloader"].items()),
    ]
    if (taken := max(result["taken_share"].values())) > DISTURBED:
        lines.append(f"something else had the core for up to {taken:.0%} of the time: the caches too; measure again")
    return lines
