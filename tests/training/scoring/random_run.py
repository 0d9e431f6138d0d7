"""A run with random weights, and its scores computed without a cluster."""

import dataclasses

import torch

from lgd.pipeline.dataset.dataset import Dataset
from lgd.training import checkpoint
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.run import Run, begin_run
from lgd.training.scoring.inference import VideoScores, load_checkpoint, load_network, score_rows
from lgd.training.scoring.protocol import CheckpointChoice, TestProtocol

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(recipe_named("nano-rgb"), stride=1, test_clips=3)


def random_network(config: TrainConfig, seed: int) -> Network:
    """Return a network with random weights whose predictions have large probabilities."""
    torch.manual_seed(seed)
    network = build(config.model, 6, 3)
    for head in (network.local_head, network.global_head):
        if head is not None:
            torch.nn.init.normal_(head.weight, std=6.0)
    return network.eval()


def make_random_run(folder: str, dataset: Dataset) -> Run:
    """Create a run whose best checkpoint is that of step 1, and whose last one is that of step 2."""
    run = begin_run(folder, "nano-rgb", CONFIG, dataset=dataset)
    writer = checkpoint.CheckpointWriter(run)
    for step, best in ((1, 0.5), (2, None)):
        network = random_network(CONFIG, step)
        writer.save(step, network, torch.optim.SGD(network.parameters(), lr=0.1), best_top1=best)
    writer.close()
    return run


def network_of(run: Run, which: CheckpointChoice = "last") -> Network:
    return load_network(run, load_checkpoint(run, which)["model"], CPU)


def score_in_process(
    run: Run, dataset: Dataset, split: str, *, protocol: TestProtocol, batch_size: int = 16
) -> list[VideoScores]:
    """Return the scores of a split by the last checkpoint, computed by this process."""
    network = network_of(run)
    return list(
        score_rows(network, run.config, dataset, split=split, protocol=protocol, device=CPU, batch_size=batch_size)
    )
