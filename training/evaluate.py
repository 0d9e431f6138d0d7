"""Predictions for a split: the mean of the class probabilities of uniform clips of whole frames (the paper's 4.1)."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.cache import ShardCache
from pipeline.dataset import open_dataset
from pipeline.errors import UserError
from pipeline.loader import ClipLoader, Delivery, uniform_loader
from pipeline.progress import Progress
from training import checkpoint
from training.models.lgd import Network
from training.models.zoo import build
from training.recipes import TrainConfig
from training.run import Run
from training.scores import Scores

CLIPS_AT_ONCE = 16  # in a batch while testing


def autocast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager:
    """The arithmetic that the configuration asks for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


@torch.inference_mode()
def predict(network: Network, loader: ClipLoader, config: TrainConfig) -> Iterator[tuple[int, torch.Tensor]]:
    """(row of the index, mean class probabilities, float32 on the CPU) of each video that the loader serves, in order.

    The network is put into evaluation mode. The loader's order must be a UniformOrder."""
    network.eval()
    clips = loader.order.clips
    waiting: list[torch.Tensor] = []
    for batch in loader:
        with autocast(config, loader.device):
            probabilities = network.probabilities(network(batch.video)).cpu()
        for position, row in zip(batch.position, probabilities, strict=True):
            waiting.append(row)
            if len(waiting) == clips:
                yield int(loader.order.rows[position // clips]), torch.stack(waiting).mean(0)
                waiting = []


def evaluate(
    run: Run, data: str, split: str, clips: int | None, device: torch.device, cache: ShardCache | None = None
) -> Scores:
    """Scores of a run's last checkpoint on a split of a dataset.

    clips: uniform clips a video; by default as many as the run's configuration says. cache: for the shards of a remote
    dataset. Raises UserError for a run without a checkpoint, and a dataset with other classes or another recipe."""
    dataset = open_dataset(data)
    recipe = dataset.recipe(run.config.stream)
    if dataset.classes != run.classes:
        raise UserError(f"{data} has other classes than {run.storage.root} was trained on: evaluate on such a dataset")
    if recipe.hash != run.data_recipe:
        raise UserError(
            f"the {run.config.stream} stream of {data} was made by another recipe than {run.storage.root} was trained "
            "on: preprocess it with the same options"
        )
    content = checkpoint.load_latest(run)
    if content is None:
        raise UserError(f"{run.storage.root} has no sound checkpoint yet: train it first")
    clips = clips or run.config.test_clips
    loader = uniform_loader(
        dataset,
        run.config.stream,
        clips,
        run.config.sampling,
        run.config.transform,
        split=split,
        most_clips=CLIPS_AT_ONCE,
        delivery=Delivery(device, threads=torch.get_num_threads(), cache=cache),
    )
    network = build(run.config.model, len(run.classes), loader.stream.channels)
    network.load_state_dict(content["model"])
    network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    rows, probabilities = [], []
    with Progress("evaluate", len(loader.order.rows), "videos") as bar:
        for row, mean in predict(network, loader, run.config):
            rows.append(row)
            probabilities.append(mean.numpy())
            bar.update(len(rows))
    about = {
        "stream": run.config.stream,
        "model": run.config.model.name,
        "recipe": run.recipe,
        "run": run.storage.root,
        "step": content["step"],
        "protocol": f"{clips} uniform clips of {run.config.sampling.frames} whole frames",
        "data_recipe": recipe.hash,
        "fingerprint": dataset.fingerprint,
    }
    index = loader.index
    return Scores(
        run.storage.root,
        index.keys(rows),
        index.labels[rows].astype(np.int64),
        np.stack(probabilities),
        dataset.classes,
        split,
        about,
    )
