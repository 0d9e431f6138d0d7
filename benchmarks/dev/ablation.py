r"""The effect of each part of the block: variants none, v1, v2 and lgd, and the combination classifier on top of lgd.

It repeats the paper's Table 2 (accuracy) and Figure 4 (training loss of both paths) with lgd3d_nano, from scratch:

    lgd preprocess ../shared/data/labelled/weizmann4 --out weizmann4 --group 's\d+' --short-side 64
    lgd demo --out lgd-demo                            # creates lgd-demo/data and trains on it
    python -m lgd.benchmarks.dev.ablation --data weizmann4 lgd-demo/data --json ablation.json

Only the variant differs. With the same seed, all variants start from the same weights in the tensors that they share,
and train on the same clips in the same order for the same number of steps. Everything else is the recipe `nano-rgb` (or
`nano-flow`), with its schedule stretched to the number of steps. The combination classifier (stage 2, the recipe
`nano-rgb-com`) starts from the trained lgd network of its seed and continues in the clip order for as many steps again,
so it has been trained for twice as long as lgd. Every training uses one thread, so --jobs does not change the results.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, open_dataset, stream_named
from lgd.pipeline.loading.loader import train_loader, uniform_loader
from lgd.training.config_file import to_flat_dict
from lgd.training.models.config import Variant
from lgd.training.models.lgd import Network
from lgd.training.models.weights import transfer
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.scoring.inference import CLIPS_PER_BATCH, score_batches
from lgd.training.scoring.metrics import top_k
from lgd.training.steps.precision import autocast

VARIANTS: tuple[Variant, ...] = ("none", "v1", "v2", "lgd")
COMBINATION = "lgd + Com"  # the name in the paper's ablation
NETWORKS = (*VARIANTS, COMBINATION)
PATHS = ("local", "global", "combined")

CURVE_POINTS = 5  # equal parts of the steps; a point is the mean loss of a part, the last one is the final loss


@dataclass(frozen=True)
class AblationJob:
    """The training of one variant in one process; for lgd followed by stage 2, the combination classifier.

    config.seed: of the initial weights and the clip order. steps: per stage."""

    data: str
    variant: Variant
    config: TrainConfig
    combination: TrainConfig
    steps: int


@dataclass(frozen=True)
class AblationResult:
    """The result of one training. top1: on the split val, a fraction of 1. losses: path -> loss of each step."""

    data: str
    network: str
    seed: int
    top1: float
    losses: dict[str, list[float]]
    seconds: float

    def curve(self, path: str) -> list[float]:
        """Return the mean loss of each of CURVE_POINTS equal parts of the steps. Raises KeyError for a missing path."""
        losses = self.losses[path]
        return [float(part.mean()) for part in np.array_split(losses, min(CURVE_POINTS, len(losses)))]


def configuration(name: str, videos: int, steps: int, *, seed: int) -> TrainConfig:
    """Return a recipe with its schedule stretched to the number of steps. videos: number of training videos."""
    recipe = recipe_named(name)
    epochs = steps * recipe.batch_size / videos
    stretch = epochs / recipe.epochs
    optimizer = replace(
        recipe.optimizer, warmup=recipe.optimizer.warmup * stretch, drop_every=recipe.optimizer.drop_every * stretch
    )
    return replace(recipe, optimizer=optimizer, epochs=epochs, seed=seed)


def initial_network(config: TrainConfig, variant: Variant, classes: int, *, channels: int) -> Network:
    """Return an untrained network. With the same seed all variants have equal values in the tensors that they share."""
    torch.manual_seed(config.seed)
    complete = build(replace(config.model, variant="lgd"), classes, channels)
    network = build(replace(config.model, variant=variant), classes, channels)
    transfer(network, complete.state_dict())  # lgd has all parts of the other variants
    return network


def run_job(job: AblationJob) -> list[AblationResult]:
    """Train and test a variant; return one result, or two for lgd (stages 1 and 2).

    Raises UserError for unsuitable data."""
    torch.set_num_threads(1)
    dataset = open_dataset(job.data)
    classes, channels = len(dataset.classes), stream_named(job.config.stream).channels
    network = initial_network(job.config, job.variant, classes, channels=channels)
    results = [_train_and_test(job, job.variant, network, dataset=dataset, config=job.config, steps=range(job.steps))]
    if job.variant == "lgd":
        torch.manual_seed(job.combination.seed)
        combined = build(job.combination.model, classes, channels)
        transfer(combined, network.state_dict())
        steps = range(job.steps, 2 * job.steps)
        results.append(
            _train_and_test(job, COMBINATION, combined, dataset=dataset, config=job.combination, steps=steps)
        )
    return results


def _train_and_test(
    job: AblationJob, name: str, network: Network, *, dataset: Dataset, config: TrainConfig, steps: range
) -> AblationResult:
    start = time.monotonic()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    losses = train(network, dataset, config, steps=steps)
    return AblationResult(job.data, name, config.seed, top1(network, dataset, config), losses, time.monotonic() - start)


def train(network: Network, dataset: Dataset, config: TrainConfig, *, steps: range) -> dict[str, list[float]]:
    """Train on the clips of these steps of the clip order; the learning rate depends on the steps since this call.

    Returns the loss of each path at every step."""
    videos = dataset.summary["splits"]["train"]
    optimizer = torch.optim.SGD(
        network.parameters(), momentum=config.optimizer.momentum, weight_decay=config.optimizer.weight_decay
    )
    loader = train_loader(
        dataset,
        config.stream,
        config.batch_size,
        steps=steps,
        sampling=config.sampling,
        transform=config.transform,
        seed=config.seed,
    )
    curves: dict[str, list[float]] = {}
    network.train()
    for step, batch in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate(step, videos)
        with autocast(config.precision, loader.device):
            output = network(batch.video)
        losses = network.loss(output, batch.label)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimizer.step()
        for path, loss in losses.paths.items():
            curves.setdefault(path, []).append(float(loss))
    return curves


def top1(network: Network, dataset: Dataset, config: TrainConfig) -> float:
    """Return top-1 on the split val, with uniform clips of full frames."""
    loader = uniform_loader(
        dataset,
        config.stream,
        config.test_clips,
        sampling=config.sampling,
        transform=config.transform,
        max_clips=CLIPS_PER_BATCH,
    )
    videos = list(score_batches(network, loader, config.precision))
    labels = loader.index.labels[[video.row for video in videos]]
    return top_k(np.stack([video.probabilities for video in videos]), labels, k=1)


def run_jobs(jobs: Sequence[AblationJob], processes: int) -> list[AblationResult]:
    """Run jobs in processes; return all results in the order of the jobs.

    Raises UserError for unsuitable data, and if a process is killed."""
    # Longest first, so that all processes end at about the same time.
    order = sorted(range(len(jobs)), key=lambda number: jobs[number].variant != "lgd")
    # No fork: threads of libraries in this process may hold locks.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        numbers = {pool.submit(run_job, jobs[number]): number for number in order}
        results: dict[int, list[AblationResult]] = {}
        try:
            for future in as_completed(numbers):
                results[numbers[future]] = future.result()
                for result in future.result():
                    say(f"{result.data}, {result.network}, seed {result.seed}: top-1 {result.top1:.1%}")
        except BrokenProcessPool as error:
            raise UserError(
                "a training process was killed, probably because memory ran out: rerun with a smaller --jobs"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return [result for number in range(len(jobs)) for result in results[number]]


def run(data: Sequence[str], stream: str, steps: int, *, seeds: int, processes: int) -> dict[str, Any]:
    """Run the ablation; return the JSON document. seeds: number of seeds, starting from 0.

    Raises UsageError for numbers below 1, UserError for datasets without the stream or without one of the splits."""
    for option, number in (("--steps", steps), ("--seeds", seeds), ("--jobs", processes)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    jobs, datasets = [], []
    for folder in dict.fromkeys(data):
        dataset = open_dataset(folder)
        dataset.spec(stream)  # raises UserError before hours of training on another dataset
        splits = dataset.summary["splits"]
        for split in ("train", "val"):
            if not splits.get(split):
                raise UserError(
                    f"{folder} has no videos in the split {split}: create a dataset with the splits train and val"
                )
        configs, combinations = (
            [configuration(name, splits["train"], steps, seed=seed) for seed in range(seeds)]
            for name in (f"nano-{stream}", f"nano-{stream}-com")
        )
        pairs = list(zip(configs, combinations, strict=True))
        jobs += [AblationJob(folder, variant, *pair, steps) for variant in VARIANTS for pair in pairs]
        datasets.append(
            {
                "data": folder,
                "fingerprint": dataset.fingerprint,
                "classes": dataset.classes,
                "splits": splits,
                "config": to_flat_dict(configs[0]),
                "combination_config": to_flat_dict(combinations[0]),
            }
        )
    results = run_jobs(jobs, processes)
    for entry in datasets:
        of_dataset = [result for result in results if result.data == entry["data"]]
        entry["table"] = [summary(name, [each for each in of_dataset if each.network == name]) for name in NETWORKS]
        entry["outcomes"] = [dataclasses.asdict(result) for result in of_dataset]
    return {"stream": stream, "steps": steps, "seeds": seeds, "datasets": datasets}


def summary(network: str, results: Sequence[AblationResult]) -> dict[str, Any]:
    """Return the row of a network: mean and sample standard deviation over its seeds (None for a single seed).

    They are given for top-1 and for the final loss of each path, with the mean curve of the loss."""
    losses = {}
    for path in PATHS:
        curves = [result.curve(path) for result in results if path in result.losses]
        if curves:
            losses[path] = {**_mean_deviation([c[-1] for c in curves]), "curve": np.mean(curves, axis=0).tolist()}
    return {"network": network, "top1": _mean_deviation([result.top1 for result in results]), "losses": losses}


def _mean_deviation(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else None}


def print_tables(result: dict[str, Any], console: Console) -> None:
    """Print the result of `run` for people."""
    steps = result["steps"]
    ends = [int(part[-1]) + 1 for part in np.array_split(range(steps), min(CURVE_POINTS, steps))]
    for entry in result["datasets"]:
        splits = entry["splits"]
        title = f"{entry['data']}, {result['stream']}: {splits['train']} training videos, {splits['val']} test videos"
        accuracy = Table("network", "top-1 %", *(f"{path} loss" for path in PATHS), title=title)
        curves = Table("network", "path", *map(str, ends), title="mean training loss up to step")
        for row in entry["table"]:
            losses = row["losses"]
            finals = [_number(losses[path], "{:.3f}") if path in losses else "" for path in PATHS]
            accuracy.add_row(row["network"], _number(row["top1"], "{:.1f}", 100), *finals)
            for path, loss in losses.items():
                curves.add_row(row["network"], path, *(f"{point:.3f}" for point in loss["curve"]))
        console.print(accuracy, curves)
    console.print(
        f"Mean ± sample standard deviation; seeds: {result['seeds']}, steps: {steps}. Each loss is the mean over the "
        f"steps since the previous column; the final loss is that of the last column. {COMBINATION} continues from lgd "
        "for as many steps again."
    )


def _number(value: dict[str, float | None], form: str, scale: float = 1) -> str:
    return " ± ".join(form.format(scale * number) for number in value.values() if isinstance(number, float))


def main(words: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="DATASET", help="folders of datasets, created by `lgd preprocess`"
    )
    parser.add_argument("--stream", choices=("rgb", "flow"), default="rgb", help="stream to train on (default: rgb)")
    parser.add_argument("--steps", type=int, default=200, help="steps per training and stage (default: 200)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per network, one per seed (default: 3)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="parallel trainings (default: one per CPU, %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write all results, including the losses of every step"
    )
    options = parser.parse_args(words)
    try:
        if options.json and not options.json.parent.is_dir():
            raise UserError(f"--json {options.json}: the folder {options.json.parent} does not exist")
        result = run(options.data, options.stream, options.steps, seeds=options.seeds, processes=options.jobs)
    except UserError as error:
        parser.exit(error.exit_code, f"{error}\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print_tables(result, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
