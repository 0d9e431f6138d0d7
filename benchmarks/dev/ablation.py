r"""What each part of the block is worth: variants none, v1, v2 and lgd, and the combination classifier on top of lgd.

The paper's Table 2 (accuracy) and Figure 4 (training loss of both paths) at the scale of lgd3d_nano, from scratch:

    lgd preprocess ../shared/data/labelled/weizmann4 --out weizmann4 --group 's\d+' --short-side 64
    lgd demo --out lgd-demo                            # renders and preprocesses lgd-demo/data; trains on it as well
    python -m lgd.benchmarks.dev.ablation --data weizmann4 lgd-demo/data --json ablation.json

Everything but the variant is held equal. For one seed, all variants start from the same weights wherever they have
the same tensors, and see the same clips in the same order for the same steps; the rest is the recipe `nano-rgb` (or
`nano-flow`), its schedule stretched to the steps. The combination classifier (stage 2, the recipe `nano-rgb-com`)
starts from the weights of its seed's trained lgd network and goes on in the clip order for as many steps again:
compare it with lgd knowing that it has been trained for twice as long. Every training has one thread, so that --jobs
changes no result.
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
from lgd.training.models.config import Variant
from lgd.training.models.lgd import Network
from lgd.training.models.weights import transfer
from lgd.training.models.zoo import build
from lgd.training.config_file import to_flat_dict
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.scoring.inference import CLIPS_PER_BATCH, autocast, score_batches
from lgd.training.scoring.metrics import top_k

VARIANTS: tuple[Variant, ...] = ("none", "v1", "v2", "lgd")
COMBINATION = "lgd + Com"  # the name in the paper's ablation
NETWORKS = (*VARIANTS, COMBINATION)
PATHS = ("local", "global", "combined")

CURVE_POINTS = 5  # equal parts of the steps; a part's mean loss is a point, the last one the final loss


@dataclass(frozen=True)
class AblationJob:
    """One variant trained by one process; lgd goes on with stage 2, the combination.

    config.seed: of initial weights and clip order. steps: of each stage."""

    data: str
    variant: Variant
    config: TrainConfig
    combination: TrainConfig
    steps: int


@dataclass(frozen=True)
class AblationResult:
    """What one training came to. top1: on the split val, a fraction of 1. losses: of each path, one a step."""

    data: str
    network: str
    seed: int
    top1: float
    losses: dict[str, list[float]]
    seconds: float

    def curve(self, path: str) -> list[float]:
        """The mean loss of each of CURVE_POINTS equal parts of the steps. KeyError for a path that there is not."""
        losses = self.losses[path]
        return [float(part.mean()) for part in np.array_split(losses, min(CURVE_POINTS, len(losses)))]


def configuration(name: str, videos: int, steps: int, *, seed: int) -> TrainConfig:
    """A recipe by name, its schedule stretched to the steps. videos: to train on."""
    recipe = recipe_named(name)
    epochs = steps * recipe.batch_size / videos
    stretch = epochs / recipe.epochs
    optimizer = replace(
        recipe.optimizer, warmup=recipe.optimizer.warmup * stretch, drop_every=recipe.optimizer.drop_every * stretch
    )
    return replace(recipe, optimizer=optimizer, epochs=epochs, seed=seed)


def initial_network(config: TrainConfig, variant: Variant, classes: int, *, channels: int) -> Network:
    """A fresh network. For one seed the variants are equal in every tensor that they share, heads included."""
    torch.manual_seed(config.seed)
    complete = build(replace(config.model, variant="lgd"), classes, channels)
    network = build(replace(config.model, variant=variant), classes, channels)
    transfer(network, complete.state_dict())  # lgd has every part that another variant has
    return network


def run_job(job: AblationJob) -> list[AblationResult]:
    """Trains and tests. One outcome, for lgd two: stages 1 and 2. Raises UserError for data that do not fit."""
    torch.set_num_threads(1)
    dataset = open_dataset(job.data)
    classes, channels = len(dataset.classes), stream_named(job.config.stream).channels
    network = initial_network(job.config, job.variant, classes, channels=channels)
    outcomes = [_train_and_test(job, job.variant, network, dataset=dataset, config=job.config, steps=range(job.steps))]
    if job.variant == "lgd":
        torch.manual_seed(job.combination.seed)
        combined = build(job.combination.model, classes, channels)
        transfer(combined, network.state_dict())
        steps = range(job.steps, 2 * job.steps)
        outcomes.append(
            _train_and_test(job, COMBINATION, combined, dataset=dataset, config=job.combination, steps=steps)
        )
    return outcomes


def _train_and_test(
    job: AblationJob, name: str, network: Network, *, dataset: Dataset, config: TrainConfig, steps: range
) -> AblationResult:
    start = time.monotonic()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    losses = train(network, dataset, config, steps=steps)
    return AblationResult(job.data, name, config.seed, top1(network, dataset, config), losses, time.monotonic() - start)


def train(network: Network, dataset: Dataset, config: TrainConfig, *, steps: range) -> dict[str, list[float]]:
    """Trains on the clips of these steps of the clip order; the rate follows the steps done here.

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
        losses.total.backward()
        optimizer.step()
        for path, loss in losses.paths.items():
            curves.setdefault(path, []).append(float(loss))
    return curves


def top1(network: Network, dataset: Dataset, config: TrainConfig) -> float:
    """Top-1 on the split val: uniform clips of whole frames."""
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
    """All outcomes, in the order of the jobs. Raises UserError if data do not fit or a process is killed."""
    # The longest first, so that no process is left with one at the end.
    order = sorted(range(len(jobs)), key=lambda number: jobs[number].variant != "lgd")
    # A forked process would share the threads of its parent's libraries, which may hold locks.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        numbers = {pool.submit(run_job, jobs[number]): number for number in order}
        outcomes: dict[int, list[AblationResult]] = {}
        try:
            for future in as_completed(numbers):
                outcomes[numbers[future]] = future.result()
                for outcome in future.result():
                    say(f"{outcome.data}, {outcome.network}, seed {outcome.seed}: {outcome.top1:.1%}")
        except BrokenProcessPool as error:
            raise UserError("a training process was killed (out of memory?): try again with fewer --jobs") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return [outcome for number in range(len(jobs)) for outcome in outcomes[number]]


def run(data: Sequence[str], stream: str, steps: int, *, seeds: int, processes: int) -> dict[str, Any]:
    """The whole ablation as one JSON document. seeds: how many, from 0 on.

    Raises UsageError for numbers below 1, UserError for datasets that lack the stream or one of the splits."""
    for option, number in (("--steps", steps), ("--seeds", seeds), ("--jobs", processes)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    jobs, datasets = [], []
    for folder in dict.fromkeys(data):
        dataset = open_dataset(folder)
        dataset.spec(stream)  # before hours of training on another
        splits = dataset.summary["splits"]
        for split in ("train", "val"):
            if not splits.get(split):
                raise UserError(f"{folder} has no videos in the split {split}: preprocess it with splits train and val")
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
    outcomes = run_jobs(jobs, processes)
    for about in datasets:
        mine = [outcome for outcome in outcomes if outcome.data == about["data"]]
        about["table"] = [summary(name, [outcome for outcome in mine if outcome.network == name]) for name in NETWORKS]
        about["outcomes"] = [dataclasses.asdict(outcome) for outcome in mine]
    return {"stream": stream, "steps": steps, "seeds": seeds, "datasets": datasets}


def summary(network: str, outcomes: Sequence[AblationResult]) -> dict[str, Any]:
    """A network's row over its seeds: mean and sample deviation (None of one seed) of top-1, and for each path that
    it has, of the final loss and the mean of the curves."""
    losses = {}
    for path in PATHS:
        curves = [outcome.curve(path) for outcome in outcomes if path in outcome.losses]
        if curves:
            losses[path] = {**_mean_deviation([c[-1] for c in curves]), "curve": np.mean(curves, axis=0).tolist()}
    return {"network": network, "top1": _mean_deviation([outcome.top1 for outcome in outcomes]), "losses": losses}


def _mean_deviation(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else None}


def print_tables(result: dict[str, Any], console: Console) -> None:
    """The result of run() for people."""
    steps = result["steps"]
    ends = [int(part[-1]) + 1 for part in np.array_split(range(steps), min(CURVE_POINTS, steps))]
    for about in result["datasets"]:
        splits = about["splits"]
        title = f"{about['data']}, {result['stream']}: {splits['train']} videos to train, {splits['val']} to test"
        accuracy = Table("network", "top-1 %", *(f"{path} loss" for path in PATHS), title=title)
        curves = Table("network", "path", *map(str, ends), title="mean training loss up to step")
        for row in about["table"]:
            losses = row["losses"]
            finals = [_number(losses[path], "{:.3f}") if path in losses else "" for path in PATHS]
            accuracy.add_row(row["network"], _number(row["top1"], "{:.1f}", 100), *finals)
            for path, loss in losses.items():
                curves.add_row(row["network"], path, *(f"{point:.3f}" for point in loss["curve"]))
        console.print(accuracy, curves)
    console.print(
        f"Mean ± sample deviation; seeds: {result['seeds']}, steps: {steps}. A loss is the mean over the steps since "
        f"the point before, the final loss that at the last point. {COMBINATION} goes on from lgd for as many steps."
    )


def _number(value: dict[str, float | None], form: str, scale: float = 1) -> str:
    return " ± ".join(form.format(scale * number) for number in value.values() if isinstance(number, float))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="DATASET", help="folders made by `lgd preprocess`")
    parser.add_argument("--stream", choices=("rgb", "flow"), default="rgb", help="what is seen (default: rgb)")
    parser.add_argument("--steps", type=int, default=200, help="steps of a training (default: 200)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network (default: 3)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once (default: one a CPU: %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where everything is written, every step's losses too"
    )
    options = parser.parse_args(words)
    try:
        if options.json and not options.json.parent.is_dir():
            raise UserError(f"--json {options.json}: there is no folder {options.json.parent}")
        result = run(options.data, options.stream, options.steps, seeds=options.seeds, processes=options.jobs)
    except UserError as error:
        parser.exit(error.exit_code, f"{error}\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print_tables(result, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
