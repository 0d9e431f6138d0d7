"""The commands of `lgd bench`. They import their benchmarks lazily, so that `lgd --help` is fast."""

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from lgd.pipeline.console.command_line import Command, CommandResult, Json
from lgd.pipeline.console.errors import UsageError
from lgd.training.recipes import TrainConfig

VideosFolder = Annotated[Positional[Path], arg(help="Folder of class folders of videos.")]
ShortSide = Annotated[int, arg(help="Shorter side of the frames, pixels.")]
Limit = Annotated[int, arg(help="Number of videos to use, evenly chosen.")]


def check_minimum(option: str, value: float, minimum: float) -> None:
    """Raise UsageError if the value of an option is below its minimum."""
    if not value >= minimum:
        raise UsageError(f"{option} must be {minimum:g} or more, not {value:g}")


def bench_flow(
    data: Annotated[
        Positional[Path],
        arg(help="Folder with videos at any depth, and optionally Middlebury pairs (frame10, frame11, flow10)."),
    ],
    videos: Annotated[int, arg(help="Number of videos to measure, evenly chosen.")] = 10,
    pairs: Annotated[int, arg(help="Pairs of frames per video and size.")] = 4,
    *,
    json: Json = False,
) -> CommandResult:
    """Compare TV-L1 flow with OpenCV's: speed, difference, end-point errors, time by stage."""
    from lgd.benchmarks.flow import run

    check_minimum("--videos", videos, 1)
    check_minimum("--pairs", pairs, 1)
    return run(data, videos, pairs)


def bench_preprocess(
    videos: VideosFolder,
    short_side: ShortSide = 120,
    limit: Limit = 32,
    *,
    rounds: Annotated[int, arg(help="Runs of the job with one worker, and as many with two.")] = 3,
    json: Json = False,
) -> CommandResult:
    """Measure the preprocessing job: time by stage, speed-up of two workers, core-hours for Kinetics."""
    from lgd.benchmarks.preprocess import run
    from lgd.preprocessing.settings import Settings

    check_minimum("--limit", limit, 1)
    check_minimum("--rounds", rounds, 1)
    return run(videos, Settings(short_side=short_side), limit, rounds=rounds)


def bench_loader(
    videos: VideosFolder,
    short_side: ShortSide = 120,
    limit: Limit = 12,
    *,
    rounds: Annotated[int, arg(help="How often each loader is measured.")] = 3,
    seconds: Annotated[float, arg(help="Minimum time of each measurement, seconds.")] = 1.0,
    s3: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help="Also measure our loader with an S3 server on this machine (needs the package moto[server])."),
    ] = False,
    json: Json = False,
) -> CommandResult:
    """Compare the loader with PyAV, OpenCV, torchcodec and bare DALI: clips per second on one core."""
    from lgd.benchmarks.loader import run
    from lgd.pipeline.loading.transform import Transform

    check_minimum("--short-side", short_side, Transform().crop)
    check_minimum("--limit", limit, 1)
    check_minimum("--rounds", rounds, 1)
    check_minimum("--seconds", seconds, 0)
    return run(videos, short_side, limit, rounds=rounds, seconds=seconds, s3=s3)


def bench_train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="Name of a recipe; `lgd recipes` lists them.")],
    data: Annotated[
        str | None,
        arg(help="Folder of a dataset: also measure training on its clips. Default: random clips only."),
    ] = None,
    steps: Annotated[int, arg(help="Steps per measurement.")] = 10,
    *,
    rounds: Annotated[int, arg(help="How often each variant is measured.")] = 3,
    threads: Annotated[int, arg(help="Threads for computation on a CPU; a worker of `lgd train` has 1.")] = 1,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> CommandResult:
    """Compare a recipe's training step with a plain one: clips and GMAC per second, data wait, memory."""
    from lgd.benchmarks.train import run

    check_minimum("--steps", steps, 1)
    check_minimum("--rounds", rounds, 1)
    check_minimum("--threads", threads, 1)
    return run(recipe, config, data, steps=steps, rounds=rounds, threads=threads)


BENCHES: dict[str, Command] = {
    "flow": bench_flow,
    "loader": bench_loader,
    "preprocess": bench_preprocess,
    "train": bench_train,
}
