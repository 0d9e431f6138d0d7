"""A recipe's training step on this machine: clips and multiply-accumulates a second, wait for data, memory.

ours     the recipe's way: channels last, its precision and micro-batch, compiled where it says so; on random clips
plain    what a first script would do: float32, contiguous, eager, the whole batch at once; on the same clips
data     the recipe's way on the clips of a dataset, by the loader

All run the step of `lgd train`, as one worker, on random weights. Each runs in a process of its own, started anew every
round; they take turns, in the opposite order every second round, and a ratio is the median of the rounds' ratios. A
training step is counted as three forward passes; the wait for data is part of the step's time. Memory is the GPU's, or
all that the process has.

Claimed are no less than the plain way's speed, and at most 5 % of the time spent waiting for data.
"""

import os
import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Column, Table

from lgd.benchmarks.isolated import run_isolated
from lgd.benchmarks.train_child import StepJob, encoded
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.training.models.zoo import check_model_config, count
from lgd.training.recipes import TrainConfig

WAYS = ("ours", "plain", "data")
CLASSES = 400  # of random clips
PASSES = 3  # forward passes that a training step costs
BF16_PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}  # dense, from the data sheets

MIN_OVER_PLAIN = 1.0
MAX_DATA_WAIT = 0.05

Round = dict[str, dict[str, Any]]  # by way


def run(
    recipe: str, config: TrainConfig, data: str | None, *, steps: int, rounds: int, threads: int = 1
) -> dict[str, Any]:
    """Measures everything; returns it as one JSON document.

    data: folder of a dataset, or None for random clips alone. steps: of each way and round. threads: on a CPU.
    Raises UserError for what is no dataset or does not fit it, UsageError for an impossible configuration."""
    classes = len(open_dataset(data).classes) if data else CLASSES
    channels = STREAMS[config.stream].channels
    check_model_config(config.model, classes, channels)
    jobs = {
        "ours": StepJob(config, False, None, classes, steps, threads),
        "plain": StepJob(config, True, None, classes, steps, threads),
    }
    if data:
        jobs["data"] = StepJob(
            config, False, os.path.abspath(data) if "://" not in data else data, classes, steps, threads
        )
    measured: list[Round] = []
    for number in range(rounds):
        done: Round = {}
        for way in list(jobs) if number % 2 == 0 else reversed(jobs):
            done[way] = measure_apart(jobs[way], way)
            speed = config.batch_size / statistics.median(done[way]["step_s"])
            say(f"round {number + 1} of {rounds}, {way}: {speed:.2f} clips/s")
        measured.append(done)
    size = count(config.model, classes, channels, size=config.transform.crop)
    about = {
        "recipe": recipe,
        "model": config.model.name,
        "frames": config.model.clip_frames,
        "crop": config.transform.crop,
        "batch": config.batch_size,
        "micro_batch": config.micro_batch_size,
        "precision": config.precision,
        "compile": config.compile,
        "parameters": size.parameters,
        "forward_gmac_per_clip": size.gmac,
        "device": measured[0]["ours"]["device"],
        "threads": threads,
        "rounds": rounds,
        "steps": steps,
    }
    return document(about, measured)


def measure_apart(job: StepJob, way: str) -> dict[str, Any]:
    """What `train_child.measure` says of a job, from a process of its own."""
    return run_isolated("lgd.benchmarks.train_child", encoded(job), what=f"a step ({way})")


def document(about: dict[str, Any], rounds: Sequence[Round]) -> dict[str, Any]:
    """All numbers, medians over the rounds. about: of the recipe and the measurement."""
    batch, gmac = about["batch"], about["forward_gmac_per_clip"]
    ways = [way for way in WAYS if way in rounds[0]]
    speeds = {way: [batch * len(done[way]["step_s"]) / sum(done[way]["step_s"]) for done in rounds] for way in ways}
    result = dict(about)
    for way in ways:
        clips_per_s = statistics.median(speeds[way])
        result[way] = {
            "step_s": statistics.median(seconds for done in rounds for seconds in done[way]["step_s"]),
            "clips_per_s": clips_per_s,
            "gmac_per_s": PASSES * gmac * clips_per_s,
            "data_wait": statistics.median(done[way]["data_wait"] for done in rounds),
            "memory_mb": max(done[way]["memory_mb"] for done in rounds),
        }
    over = {way: [mine / other for mine, other in zip(speeds["ours"], speeds[way], strict=True)] for way in ways}
    result["ratios"] = {
        "ours_over_plain": statistics.median(over["plain"]),
        "memory_ours_over_plain": result["ours"]["memory_mb"] / result["plain"]["memory_mb"],
    }
    if "data" in ways:
        result["ratios"]["data_over_random"] = 1 / statistics.median(over["data"])
    peak = next((tflops for name, tflops in BF16_PEAK_TFLOPS.items() if name in about["device"]), None)
    if peak:
        result["ours_of_bf16_peak"] = 2 * result["ours"]["gmac_per_s"] / 1e3 / peak
    result["failed"] = broken_claims(result)
    return result


def broken_claims(result: dict[str, Any]) -> list[str]:
    """What of the claims does not hold."""
    broken, ratio = [], result["ratios"]["ours_over_plain"]
    if ratio < MIN_OVER_PLAIN:
        broken.append(f"{ratio:.2f} times the plain way's speed, not {MIN_OVER_PLAIN:g}")
    if "data" in result and (wait := result["data"]["data_wait"]) > MAX_DATA_WAIT:
        broken.append(f"{wait:.1%} of the time spent waiting for data, not at most {MAX_DATA_WAIT:.0%}")
    return broken


def report(result: dict[str, Any]) -> list[Any]:
    """The result of run() for people: lines and tables."""
    names = ("s/step", "clips/s", "GMAC/s", "data wait", "memory, MB")
    table = Table("way", *(Column(name, justify="right") for name in names))
    titles = {"ours": "ours, random clips", "plain": "plain, random clips", "data": "ours, the dataset's clips"}
    for way in (way for way in WAYS if way in result):
        numbers = result[way]
        speeds = (f"{numbers[name]:.3g}" for name in ("step_s", "clips_per_s", "gmac_per_s"))
        table.add_row(titles[way], *speeds, f"{numbers['data_wait']:.1%}", f"{numbers['memory_mb']:.0f}")
    ratios = result["ratios"]
    line = f"ours over plain: {ratios['ours_over_plain']:.2f} times the speed, "
    line += f"{ratios['memory_ours_over_plain']:.2f} times the memory"
    if "data_over_random" in ratios:
        line += f"; the dataset's clips at {ratios['data_over_random']:.2f} times the speed of random ones"
    if "ours_of_bf16_peak" in result:
        line += f"; {result['ours_of_bf16_peak']:.1%} of the card's bfloat16 peak"
    on = result["device"] if result["device"] != "cpu" else f"CPU, {result['threads']} threads"
    clip = f"{result['frames']} frames of {result['crop']} x {result['crop']}"
    about = f"{result['recipe']}: {result['batch']} clips a step of {clip}, on {on}; "
    about += (
        f"{result['forward_gmac_per_clip']:.3g} GMAC a clip forward, a training step is counted as {PASSES} of them"
    )
    mine = f"{result['precision']}, channels last, {'compiled' if result['compile'] else 'eager'}"
    return [about, f"ours: {mine}; plain: float32, contiguous, eager", table, line]
