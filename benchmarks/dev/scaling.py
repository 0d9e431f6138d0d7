"""How a recipe scales from 1 to 64 nodes: predicted from measurements here, and checked against real workers.

    python -m lgd.benchmarks.dev.scaling nano-rgb --data DATASET
    python -m lgd.benchmarks.dev.scaling kinetics400-rgb-r50 --data DATASET --gbit 25 200 --compile  # or other options

It measures the training step of one worker at each share of the global batch that a number of nodes has, and the
start-up of a worker group by stage. The prediction (`scaling_model`) adds a ring all-reduce of the gradients; its
assumptions are printed with it. It is checked against runs of 1 worker and, without a GPU, of 2 workers: processes with
one core each, which communicate with gloo over loopback; the speed of loopback is measured as well. Claim: the measured
step is within 25% of the prediction.
"""

import json as json_
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rich.table import Column, Table
from tyro.conf import Positional, arg

from lgd.benchmarks.claims import ClaimsResult
from lgd.benchmarks.dev.scaling_model import (
    ASSUMPTIONS,
    NODES,
    Bounds,
    Prediction,
    StepPrediction,
    predict,
    ring_s,
    step_bounds,
)
from lgd.benchmarks.isolated import run_isolated
from lgd.benchmarks.train_child import StepJob, encode_job
from lgd.pipeline.console.command_line import Json, Line, run_and_print
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.option_parser import parse_command
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.pipeline.storage.storage import absolute_path
from lgd.training.models.zoo import check_model_config, count
from lgd.training.recipes import TrainConfig, recipe_defaults
from lgd.training.run import METRICS, STARTS, begin_run
from lgd.training.steps.compile import compiles

MAX_ERROR = 0.25  # of the prediction
RING_ROUNDS = 20


@dataclass(frozen=True)
class Loopback:
    """The connection between two processes on this machine. gbit: bandwidth, 10^9 bits per second."""

    gbit: float
    latency_us: float


@dataclass(frozen=True)
class WorkerRun:
    """A run of real workers. step_s: seconds per step. start_up_s: stage of the start-up -> seconds."""

    workers: int
    step_s: float
    start_up_s: dict[str, float]


@dataclass(frozen=True)
class Check(WorkerRun):
    """A run compared with its prediction. error: of the nearest bound; 0 between the bounds."""

    predicted_s: Bounds
    predicted_over_measured: Bounds
    error: float


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What is measured. gradient_bytes: size of the gradients. latency_us: assumed between two nodes."""

    recipe: str
    batch: int
    precision: str
    compile: bool
    gradient_bytes: int
    device: str
    latency_us: float
    assumptions: tuple[str, ...] = ASSUMPTIONS


@dataclass(frozen=True, kw_only=True)
class ScalingBenchmark(StepSettings, ClaimsResult):
    """The result of the benchmark. compute_s: share of the batch -> seconds of computation per step. loopback: None
    with a GPU or a single core."""

    compute_s: dict[str, float]
    predicted: list[Prediction]
    loopback: Loopback | None
    checks: list[Check]

    def lines(self) -> list[Line]:
        lines: list[Line] = [
            f"{self.recipe}: {self.batch} clips per step, gradients of {self.gradient_bytes / 1e6:.1f} MB, on "
            f"{self.device}; efficiency compared with one node, latency {self.latency_us:g} us",
            *(f"* {assumption}" for assumption in self.assumptions),
        ]
        if self.loopback is not None:
            lines.append(f"loopback, gloo: {self.loopback.gbit:.1f} Gbit/s, {self.loopback.latency_us:.0f} us")
        checks = Table("workers", "measured, s/step", "predicted, s/step", "predicted / measured")
        stages = list(self.checks[0].start_up_s)
        starts = Table("start-up, s", *(Column(stage.replace("_", " "), justify="right") for stage in stages), "total")
        for check in self.checks:
            low, high = check.predicted_s
            ratios = " to ".join(f"{ratio:.2f}" for ratio in check.predicted_over_measured)
            checks.add_row(str(check.workers), f"{check.step_s:.3g}", f"{low:.3g} to {high:.3g}", ratios)
            seconds = [*check.start_up_s.values(), sum(check.start_up_s.values())]
            starts.add_row(f"workers: {check.workers}", *(f"{value:.1f}" for value in seconds))
        return [*lines, self._efficiency_table("strong"), self._efficiency_table("weak"), checks, starts]

    def _efficiency_table(self, kind: str) -> Table:
        """kind: strong or weak."""
        bandwidths = sorted({prediction.gbit for prediction in self.predicted})
        predicted: dict[tuple[int, float], StepPrediction | None] = {
            (prediction.nodes, prediction.gbit): getattr(prediction, kind) for prediction in self.predicted
        }
        columns = [Column(f"{bandwidth:g} Gbit/s", justify="right") for bandwidth in bandwidths]
        table = Table("nodes", "clips each", "compute, s", *columns, title=f"{kind} scaling: efficiency")
        for nodes in NODES:
            row = [predicted[nodes, bandwidth] for bandwidth in bandwidths]
            first = row[0]
            share = [str(first.share), f"{self.compute_s[str(first.share)]:.3g}"] if first else ["", ""]
            cells = (f"{each.efficiency[1]:.0%} to {each.efficiency[0]:.0%}" if each else "-" for each in row)
            table.add_row(str(nodes), *share, *cells)
        return table


def run(
    recipe: str, config: TrainConfig, data: str, *, gbit: Sequence[float], latency_us: float, steps: int, rounds: int
) -> ScalingBenchmark:
    """Measure, predict and check.

    gbit: bandwidths of a node's network, 10^9 bits per second. steps: per measurement. rounds: measurements of each
    share of the batch."""
    import torch  # slow

    dataset = open_dataset(data)
    channels = STREAMS[config.stream].channels
    check_model_config(config.model, len(dataset.classes), channels)
    data = absolute_path(data)
    gradient_bytes = 4 * count(config.model, len(dataset.classes), channels).parameters
    gpus, cores = torch.cuda.is_available(), sorted(os.sched_getaffinity(0))
    max_workers = 1 if gpus else min(2, len(cores), config.batch_size)

    shares = sorted({-(-config.batch_size // nodes) for nodes in NODES if nodes <= config.batch_size}, reverse=True)
    step_s: dict[int, list[float]] = {share: [] for share in shares}
    for number in range(rounds):
        for share in shares if number % 2 == 0 else reversed(shares):
            job = StepJob(replace(config, batch_size=share), False, data, len(dataset.classes), steps, threads=1)
            measured = run_isolated(
                "lgd.benchmarks.train_child",
                encode_job(job),
                name=f"a step of {share} clips",
                cores=None if gpus else {cores[-1]},
            )
            step_s[share] += measured["step_s"]
            say(f"round {number + 1} of {rounds}: {statistics.median(measured['step_s']):.3f} s for {share} clips")
    compute_s = {share: statistics.median(seconds) for share, seconds in step_s.items()}

    loopback = None
    if max_workers > 1:
        arguments = ("ring", str(gradient_bytes), str(RING_ROUNDS))
        seconds = run_isolated(
            "lgd.benchmarks.dev.scaling_child", *arguments, name="an all-reduce", cores=set(cores[-2:])
        )
        loopback = loopback_of(seconds, gradient_bytes)
    runs = []
    for workers in range(1, max_workers + 1):
        cpus = 0 if gpus else workers
        runs.append(real_run(recipe, config, data, workers=workers, steps=steps, cpus=cpus, cores=cores))
        say(f"workers {workers}: {runs[-1].step_s:.3f} s per step")
    settings = StepSettings(
        recipe=recipe,
        batch=config.batch_size,
        precision=config.precision,
        compile=compiles(config.compile, torch.device("cuda" if gpus else "cpu"))[0],
        gradient_bytes=gradient_bytes,
        device=torch.cuda.get_device_name() if gpus else "cpu, one core per worker",
        latency_us=latency_us,
    )
    return summarize(settings, compute_s, gbit, loopback=loopback, runs=runs)


def loopback_of(seconds: Mapping[str, float], size: int) -> Loopback:
    """Return the bandwidth and latency that explain a large and a small all-reduce of two processes."""
    latency_s = seconds["small_s"] / 2
    bytes_per_s = size / max(seconds["large_s"] - seconds["small_s"], 1e-9)
    return Loopback(bytes_per_s * 8 / 1e9, latency_s * 1e6)


def real_run(
    recipe: str, config: TrainConfig, data: str, *, workers: int, steps: int, cpus: int, cores: Sequence[int]
) -> WorkerRun:
    """Train a few steps with a number of workers. cpus: number of cores that the run may use; 0 for no limit."""
    dataset = open_dataset(data)
    epochs = (steps + 1) * config.batch_size / dataset.summary["splits"]["train"]
    no_validation = replace(config.validation, split="")
    no_checkpoints = replace(config.checkpoint, every_s=1e9)
    config = replace(
        config, epochs=epochs, validation=no_validation, checkpoint=no_checkpoints, init_from=None, imagenet=None
    )
    with tempfile.TemporaryDirectory(prefix="lgd-bench-") as folder:
        begin_run(folder, recipe, config, dataset=dataset)
        driver = run_isolated(
            "lgd.benchmarks.dev.scaling_child",
            *("train", folder, data, str(workers), str(cpus)),
            name=f"a run of {workers} workers",
            cores=set(cores[-cpus:]) if cpus else None,
        )
        entered = (Path(folder) / STARTS).stat().st_mtime  # the first file that a worker writes
        lines = [json_.loads(line) for line in (Path(folder) / METRICS).read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    return WorkerRun(workers, mean_step_s(lines), start_up(driver, entered, lines[0]))


def mean_step_s(lines: Sequence[dict[str, Any]]) -> float:
    """Return the mean seconds per step in the lines of a run's metrics.

    The first step is part of the start-up and does not count; it has its own line."""
    seconds = sum(float(line["step_s"]) * len(line["losses"]) for line in lines[1:])
    return seconds / sum(len(line["losses"]) for line in lines[1:])


def start_up(driver: Mapping[str, float], entered: float, first: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each stage until the end of the first step.

    entered: when the code of the workers started, Unix time. first: the metrics line of the first step."""
    step_started = first["time"] - first["step_s"]
    waited_s = first["step_s"] * first["data_wait"]
    return {
        "cluster": driver["cluster_s"],
        "workers": entered - driver["train_at"],  # processes, imports, process group
        "network_and_dali": step_started - entered,
        "first_batch": waited_s,
        "first_step": first["step_s"] - waited_s,
    }


def summarize(
    settings: StepSettings,
    compute_s: Mapping[int, float],
    gbit: Sequence[float],
    *,
    loopback: Loopback | None,
    runs: Sequence[WorkerRun],
) -> ScalingBenchmark:
    """Compute the predictions and compare them with the runs."""
    batch, size = settings.batch, settings.gradient_bytes
    checks, not_met = [], []
    for run in runs:
        reduce_s = 0.0
        if run.workers > 1:
            assert loopback is not None
            reduce_s = ring_s(run.workers, size, loopback.gbit * 1e9 / 8, latency_s=loopback.latency_us / 1e6)
        low, high = step_bounds(compute_s[-(-batch // run.workers)], reduce_s)
        nearest = min(max(run.step_s, low), high)
        error = run.step_s / nearest - 1
        ratios = (low / run.step_s, high / run.step_s)
        checks.append(Check(**vars(run), predicted_s=(low, high), predicted_over_measured=ratios, error=error))
        if abs(error) > MAX_ERROR:
            workers = f"{run.workers} worker{'s' if run.workers > 1 else ''}"
            not_met.append(
                f"a step with {workers} took {1 + error:.2f} times as long as predicted (maximum: {1 + MAX_ERROR:g})"
            )
    return ScalingBenchmark(
        **vars(settings),
        compute_s={str(share): seconds for share, seconds in compute_s.items()},
        predicted=predict(compute_s, batch, size, gbit=gbit, latency_s=settings.latency_us / 1e6),
        loopback=loopback,
        checks=checks,
        claims_not_met=not_met,
    )


def scaling(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="Name of a recipe; `lgd recipes` lists them.")],
    data: Annotated[str, arg(help="Folder of the dataset.")],
    gbit: Annotated[tuple[float, ...], arg(help="Bandwidths of a node's network, 10^9 bits per second.")] = (
        10,
        25,
        100,
        200,
    ),
    *,
    latency_us: Annotated[float, arg(help="Latency of a message between two nodes, microseconds.")] = 20.0,
    steps: Annotated[int, arg(help="Steps per measurement.")] = 20,
    rounds: Annotated[int, arg(help="How often each share of the batch is measured.")] = 3,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> ScalingBenchmark:
    """Predict how a recipe scales from 1 to 64 nodes, and check the prediction against real workers."""
    if min(steps, rounds) < 1 or min(gbit) <= 0 or latency_us < 0:
        raise UsageError("--steps and --rounds must be 1 or more, --gbit more than 0, --latency-us 0 or more")
    return run(recipe, config, data, gbit=gbit, latency_us=latency_us, steps=steps, rounds=rounds)


def main() -> None:
    """Run the script."""
    words = sys.argv[1:]
    program = "python -m lgd.benchmarks.dev.scaling"
    run_and_print(words, lambda: parse_command(scaling, words, program, defaults=recipe_defaults(words))())


if __name__ == "__main__":
    main()
