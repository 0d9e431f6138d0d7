"""The verbs of `lgd bench`: what they take, and what they print."""

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from lgd.pipeline.console.command_line import Answer, Command, Json
from lgd.pipeline.console.errors import UsageError
from lgd.preprocessing.settings import Settings
from lgd.training.recipes import TrainConfig


def bench_flow(
    data: Annotated[
        Positional[Path], arg(help="Folder with videos at any depth, and Middlebury pairs (frame10, frame11, flow10).")
    ],
    videos: Annotated[int, arg(help="Videos measured, evenly chosen from those found.")] = 10,
    pairs: Annotated[int, arg(help="Pairs of frames solved of each video at each size.")] = 4,
    *,
    json: Json = False,
) -> Answer:
    """TV-L1 flow beside OpenCV's: speed, difference, end-point errors, cost by stage."""
    from lgd.benchmarks.flow import report
    from lgd.benchmarks.flow import run as run_benchmark

    for option, number in (("--videos", videos), ("--pairs", pairs)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    result = run_benchmark(data, videos, pairs)
    failed = "; ".join(result["failed"])
    return Answer(result, report(result), f"claims that do not hold: {failed}" if failed else "")


def bench_preprocess(
    videos: Annotated[Positional[Path], arg(help="Folder of class folders of videos.")],
    short_side: Annotated[int, arg(help="Shorter side of the frames, pixels.")] = 120,
    limit: Annotated[int, arg(help="Videos taken, evenly chosen.")] = 32,
    *,
    rounds: Annotated[int, arg(help="Runs of the job with one worker, and as many with two.")] = 3,
    json: Json = False,
) -> Answer:
    """The preprocessing job: cost by stage, two workers over one, projected core-hours for Kinetics."""
    from lgd.benchmarks.preprocess import report
    from lgd.benchmarks.preprocess import run as run_benchmark

    for option, number in (("--limit", limit), ("--rounds", rounds)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    result = run_benchmark(videos, Settings(short_side=short_side), limit, rounds=rounds)
    return Answer(result, report(result))


def bench_loader(
    videos: Annotated[Positional[Path], arg(help="Folder of class folders of videos.")],
    short_side: Annotated[int, arg(help="Shorter side of the frames, pixels.")] = 120,
    limit: Annotated[int, arg(help="Videos taken, evenly chosen.")] = 12,
    *,
    rounds: Annotated[int, arg(help="Times that every loader is measured, in turn.")] = 3,
    seconds: Annotated[float, arg(help="Of measuring a loader in each case, at least.")] = 1.0,
    s3: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help="Also ours on an S3 server on this machine (takes the package moto[server])."),
    ] = False,
    json: Json = False,
) -> Answer:
    """The loader beside PyAV, OpenCV and bare DALI: clips a second on one core."""
    from lgd.benchmarks.loader import report
    from lgd.benchmarks.loader import run as run_benchmark
    from lgd.pipeline.loading.transform import Transform

    for option, number, least in (
        ("--short-side", short_side, Transform().crop),
        ("--limit", limit, 1),
        ("--rounds", rounds, 1),
        ("--seconds", seconds, 0),
    ):
        if number < least:
            raise UsageError(f"{option} must be {least} or more, not {number}")
    result = run_benchmark(videos, short_side, limit, rounds=rounds, seconds=seconds, s3=s3)
    failed = "; ".join(result["failed"])
    return Answer(result, report(result), f"claims that do not hold: {failed}" if failed else "")


def bench_train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="One of `lgd recipes`.")],
    data: Annotated[
        str | None, arg(help="Folder of a dataset: training on its clips is measured as well. Default: random clips.")
    ] = None,
    steps: Annotated[int, arg(help="Steps measured at a time.")] = 10,
    *,
    rounds: Annotated[int, arg(help="Times that each way is measured, in turn.")] = 3,
    threads: Annotated[int, arg(help="Of the arithmetic on a CPU; a worker of `lgd train` has 1.")] = 1,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> Answer:
    """A recipe's training step beside the plain one: clips and multiply-accumulates a second, data wait, memory."""
    from lgd.benchmarks.train import report
    from lgd.benchmarks.train import run as run_benchmark

    for option, number in (("--steps", steps), ("--rounds", rounds), ("--threads", threads)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    result = run_benchmark(recipe, config, data, steps=steps, rounds=rounds, threads=threads)
    failed = "; ".join(result["failed"])
    return Answer(result, report(result), f"claims that do not hold: {failed}" if failed else "")


BENCHES: dict[str, Command] = {
    "flow": bench_flow,
    "loader": bench_loader,
    "preprocess": bench_preprocess,
    "train": bench_train,
}
