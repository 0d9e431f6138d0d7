"""How far a recipe scales, from 1 to 64 nodes: predicted from what is measured here, and checked against real workers.

    python -m lgd.benchmarks.dev.scaling nano-rgb --data DATASET
    python -m lgd.benchmarks.dev.scaling kinetics400-rgb-r50 --data DATASET --gbit 25 200 --compile   # any recipe field

Measured are the step of one worker at each share of the global batch that a number of nodes leaves to it, and the
start-up of a group of workers by stage. The prediction adds a ring all-reduce of the gradients; its assumptions are
printed with it. It is checked against runs of 1 worker and, without a GPU, of 2: each a process with a core of its own,
which talk by gloo over loopback, whose speed is measured too. Claimed is that the measured step is within 25 % of what
is predicted.
"""

import json as json_
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from rich.table import Column, Table
from tyro.conf import Positional, arg

from lgd.benchmarks.isolated import run_isolated
from lgd.benchmarks.train_child import StepJob, encoded
from lgd.pipeline.console.command_line import Answer, Json, run_and_print
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.option_parser import parse_command
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.training.models.zoo import check_model_config, count
from lgd.training.recipes import TrainConfig, recipe_defaults
from lgd.training.run import METRICS, STARTS, begin_run

NODES = (1, 2, 4, 8, 16, 32, 64)
BUCKET_BYTES, FIRST_BUCKET_BYTES = 25 * 2**20, 2**20  # DistributedDataParallel's
BACKWARD = 2 / 3  # of a step's arithmetic
MAX_ERROR = 0.25
RING_ROUNDS = 20
ASSUMPTIONS = (
    "a node is one worker like this machine's, all are equally fast, and data keeps coming as it does here",
    "all-reduce of float32 gradients in a ring: 2 (N-1)/N x bytes / bandwidth + 2 (N-1) x latency a bucket of 25 MB",
    "each figure is a pair of bounds: the all-reduce after the backward pass, or beside it (2/3 of the step)",
    "strong: the global batch is cut over the nodes, as lgd train does, which starts no more workers than clips",
    "weak: every node has the whole batch of the recipe, so that the global batch grows with the nodes",
    "validation, checkpoints and start-up are not in it",
)

Bounds = tuple[float, float]  # with full overlap, with none


def ring_s(nodes: int, size: int, bytes_per_s: float, *, latency_s: float) -> float:
    """Seconds of a ring all-reduce of gradients of `size` bytes, in the buckets in which they are sent."""
    buckets = 1 + math.ceil(max(size - FIRST_BUCKET_BYTES, 0) / BUCKET_BYTES)
    return 2 * (nodes - 1) / nodes * size / bytes_per_s + 2 * (nodes - 1) * latency_s * buckets if nodes > 1 else 0.0


def step_bounds(compute_s: float, reduce_s: float) -> Bounds:
    """Seconds of a step whose all-reduce begins with the backward pass, or after it."""
    return max(compute_s, (1 - BACKWARD) * compute_s + reduce_s), compute_s + reduce_s


def predict(
    compute_s: Mapping[int, float], batch: int, size: int, *, gbit: Sequence[float], latency_s: float
) -> list[dict[str, Any]]:
    """A row for each number of nodes and bandwidth. compute_s: by share of the batch; size: of the gradients, bytes.

    Efficiencies are against one node; strong ones are None where there would be more nodes than clips."""
    rows = []
    for nodes in NODES:
        for each in gbit:
            reduce_s = ring_s(nodes, size, each * 1e9 / 8, latency_s=latency_s)
            row: dict[str, Any] = {"nodes": nodes, "gbit": each, "all_reduce_s": reduce_s, "strong": None}
            alone = compute_s[batch]
            if nodes <= batch:
                share = -(-batch // nodes)
                bounds = step_bounds(compute_s[share], reduce_s)
                efficiency = [alone / (nodes * seconds) for seconds in bounds]
                row["strong"] = {"share": share, "step_s": list(bounds), "efficiency": efficiency}
            bounds = step_bounds(alone, reduce_s)
            row["weak"] = {"step_s": list(bounds), "efficiency": [alone / seconds for seconds in bounds]}
            rows.append(row)
    return rows


def run(
    recipe: str, config: TrainConfig, data: str, *, gbit: Sequence[float], latency_us: float, steps: int, rounds: int
) -> dict[str, Any]:
    """Measures, predicts and checks; returns it as one JSON document.

    gbit: bandwidths of a node's network, 10^9 bits a second. steps: measured at a time; rounds: of each share."""
    import torch  # here, because it takes long to load

    dataset = open_dataset(data)
    channels = STREAMS[config.stream].channels
    check_model_config(config.model, len(dataset.classes), channels)
    data = data if "://" in data else os.path.abspath(data)
    gradient_bytes = 4 * count(config.model, len(dataset.classes), channels).parameters
    gpus, cores = torch.cuda.is_available(), sorted(os.sched_getaffinity(0))
    most = 1 if gpus else min(2, len(cores), config.batch_size)

    shares = sorted({-(-config.batch_size // nodes) for nodes in NODES if nodes <= config.batch_size}, reverse=True)
    measured: dict[int, list[float]] = {share: [] for share in shares}
    for number in range(rounds):
        for share in shares if number % 2 == 0 else reversed(shares):
            job = StepJob(replace(config, batch_size=share), False, data, len(dataset.classes), steps, threads=1)
            one = None if gpus else {cores[-1]}
            found = run_isolated("lgd.benchmarks.train_child", encoded(job), what=f"a step of {share} clips", cores=one)
            measured[share] += found["step_s"]
            say(f"round {number + 1} of {rounds}: {statistics.median(found['step_s']):.3f} s for {share} clips")
    compute_s = {share: statistics.median(times) for share, times in measured.items()}

    loopback = None
    if most > 1:
        words = ("ring", str(gradient_bytes), str(RING_ROUNDS))
        loopback = loopback_of(
            run_isolated("lgd.benchmarks.dev.scaling_child", *words, what="an all-reduce", cores=set(cores[-2:])),
            gradient_bytes,
        )
    runs = []
    for workers in range(1, most + 1):
        found = real_run(recipe, config, data, workers=workers, steps=steps, cpus=0 if gpus else workers, cores=cores)
        say(f"{workers} workers: {found['step_s']:.3f} s a step")
        runs.append(found)
    about = {
        "recipe": recipe,
        "batch": config.batch_size,
        "precision": config.precision,
        "compile": config.compile,
        "gradient_bytes": gradient_bytes,
        "device": torch.cuda.get_device_name() if gpus else "cpu, a core a worker",
        "latency_us": latency_us,
        "assumptions": list(ASSUMPTIONS),
    }
    return document(about, compute_s, gbit, loopback=loopback, runs=runs)


def loopback_of(seconds: Mapping[str, float], size: int) -> dict[str, float]:
    """The bandwidth and latency that explain a large and a small all-reduce of two processes."""
    latency = seconds["small_s"] / 2
    bandwidth = size / max(seconds["large_s"] - seconds["small_s"], 1e-9)
    return {"gbit": bandwidth * 8 / 1e9, "latency_us": latency * 1e6}


def real_run(
    recipe: str, config: TrainConfig, data: str, *, workers: int, steps: int, cpus: int, cores: Sequence[int]
) -> dict[str, Any]:
    """A run of a few steps by so many workers: step_s, and seconds of its start-up by stage.

    cpus: that it is confined to; 0 for no limit."""
    dataset = open_dataset(data)
    epochs = (steps + 1) * config.batch_size / dataset.summary["splits"]["train"]
    unvalidated = replace(config.validation, split="")
    rarely = replace(config.checkpoint, every_s=1e9)
    config = replace(config, epochs=epochs, validation=unvalidated, checkpoint=rarely, init_from=None, imagenet=None)
    with tempfile.TemporaryDirectory(prefix="lgd-bench-") as folder:
        begin_run(folder, recipe, config, dataset=dataset)
        words = ("fit", folder, data, str(workers), str(cpus))
        some = set(cores[-cpus:]) if cpus else None
        driver = run_isolated(
            "lgd.benchmarks.dev.scaling_child", *words, what=f"a run of {workers} workers", cores=some
        )
        entered = (Path(folder) / STARTS).stat().st_mtime  # written by the first worker, first of all
        lines = [json_.loads(line) for line in (Path(folder) / METRICS).read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    return {"workers": workers, "step_s": mean_step_s(lines), "start_up_s": start_up(driver, entered, lines[0])}


def mean_step_s(lines: Sequence[dict[str, Any]]) -> float:
    """Of a log's steps but the first, which has a line of its own and belongs to the start-up."""
    counted = [(line["step_s"], len(line["losses"])) for line in lines[1:]]
    return sum(seconds * steps for seconds, steps in counted) / sum(steps for _, steps in counted)


def start_up(driver: Mapping[str, float], entered: float, first: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage up to the end of the first step.

    entered: when the workers began with our part, Unix time; first: line of the log of the first step."""
    began = first["time"] - first["step_s"]
    waited = first["step_s"] * first["data_wait"]
    return {
        "cluster": driver["cluster_s"],
        "workers": entered - driver["fit_at"],  # processes, imports, process group
        "network_and_dali": began - entered,
        "first_batch": waited,
        "first_step": first["step_s"] - waited,
    }


def document(
    about: dict[str, Any],
    compute_s: Mapping[int, float],
    gbit: Sequence[float],
    *,
    loopback: Mapping[str, float] | None,
    runs: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """All numbers. loopback: bandwidth and latency between two processes here."""
    batch, size = about["batch"], about["gradient_bytes"]
    checks, failed = [], []
    for found in runs:
        workers, reduce_s = found["workers"], 0.0
        if workers > 1:
            assert loopback is not None
            reduce_s = ring_s(workers, size, loopback["gbit"] * 1e9 / 8, latency_s=loopback["latency_us"] / 1e6)
        low, high = step_bounds(compute_s[-(-batch // workers)], reduce_s)
        nearest = min(max(found["step_s"], low), high)
        error = found["step_s"] / nearest - 1
        ratios = [low / found["step_s"], high / found["step_s"]]
        checks.append({**found, "predicted_s": [low, high], "predicted_over_measured": ratios, "error": error})
        if abs(error) > MAX_ERROR:
            failed.append(f"a step of {workers} workers took {1 + error:.2f} times what was predicted")
    return {
        **about,
        "compute_s": {str(share): seconds for share, seconds in compute_s.items()},
        "predicted": predict(compute_s, batch, size, gbit=gbit, latency_s=about["latency_us"] / 1e6),
        "loopback": loopback,
        "checks": checks,
        "failed": failed,
    }


def report(result: dict[str, Any]) -> list[Any]:
    """The result of run() for people: lines and tables."""
    gbit = sorted({row["gbit"] for row in result["predicted"]})
    rows = {(row["nodes"], row["gbit"]): row for row in result["predicted"]}
    tables = []
    for kind in ("strong", "weak"):
        columns = [Column(f"{each:g} Gbit/s", justify="right") for each in gbit]
        table = Table(f"{kind}: nodes", "clips each", "step alone, s", *columns)
        for nodes in NODES:
            first = rows[nodes, gbit[0]][kind]
            share = first.get("share", result["batch"]) if first else 0
            alone = f"{result['compute_s'][str(share)]:.3g}" if first else ""
            cells = [_bounds(rows[nodes, each][kind]) for each in gbit]
            table.add_row(str(nodes), str(share or ""), alone, *cells)
        tables.append(table)
    checks = Table("workers here", "measured, s/step", "predicted", "predicted / measured", title=None)
    for check_ in result["checks"]:
        low, high = check_["predicted_s"]
        ratios = " to ".join(f"{ratio:.2f}" for ratio in check_["predicted_over_measured"])
        checks.add_row(str(check_["workers"]), f"{check_['step_s']:.3g}", f"{low:.3g} to {high:.3g}", ratios)
    stages = list(result["checks"][0]["start_up_s"])
    starts = Table("start-up, s", *(Column(stage.replace("_", " "), justify="right") for stage in stages), "together")
    for check_ in result["checks"]:
        spent = check_["start_up_s"]
        together = f"{sum(spent.values()):.1f}"
        starts.add_row(f"{check_['workers']} workers", *(f"{spent[stage]:.1f}" for stage in stages), together)
    lines: list[Any] = [
        f"{result['recipe']}: {result['batch']} clips a step, gradients of {result['gradient_bytes'] / 1e6:.1f} MB, on "
        f"{result['device']}; efficiency against one node, latency {result['latency_us']:g} us",
        *(f"* {assumption}" for assumption in result["assumptions"]),
    ]
    if loopback := result["loopback"]:
        lines.append(f"loopback, by gloo: {loopback['gbit']:.1f} Gbit/s, {loopback['latency_us']:.0f} us")
    return [*lines, *tables, checks, starts]


def _bounds(numbers: dict[str, Any] | None) -> str:
    if numbers is None:
        return "-"
    best, worst = numbers["efficiency"]
    return f"{worst:.0%} to {best:.0%}"


def scaling(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="One of `lgd recipes`.")],
    data: Annotated[str, arg(help="Folder of the dataset.")],
    gbit: Annotated[tuple[float, ...], arg(help="Bandwidths of a node's network, 10^9 bits a second.")] = (
        10,
        25,
        100,
        200,
    ),
    *,
    latency_us: Annotated[float, arg(help="Of a message between two nodes, microseconds.")] = 20.0,
    steps: Annotated[int, arg(help="Steps measured at a time.")] = 20,
    rounds: Annotated[int, arg(help="Times that each share of the batch is measured.")] = 3,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> Answer:
    """How far a recipe scales, from 1 to 64 nodes: predicted, and checked against real workers."""
    if min(steps, rounds) < 1 or min(gbit) <= 0 or latency_us < 0:
        raise UsageError("--steps and --rounds must be 1 or more, --gbit more than 0, --latency-us 0 or more")
    result = run(recipe, config, data, gbit=gbit, latency_us=latency_us, steps=steps, rounds=rounds)
    failed = "; ".join(result["failed"])
    return Answer(result, report(result), f"claims that do not hold: {failed}" if failed else "")


def main() -> None:
    words = sys.argv[1:]
    run_and_print(
        words,
        lambda: parse_command(
            scaling, words, "python -m lgd.benchmarks.dev.scaling", defaults=recipe_defaults(words)
        )(),
    )


if __name__ == "__main__":
    main()
