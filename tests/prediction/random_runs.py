"""Runs with random weights for tests of `lgd predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.prediction.options import PredictOptions
from lgd.prediction.predict_files import PredictResult, predict_files
from lgd.training.checkpoint import CheckpointWriter
from lgd.training.models.zoo import build
from lgd.training.recipes import recipe_named
from lgd.training.run import begin_run

CLIPS = 3


def make_run(folder: Path, stream: str, dataset: Dataset) -> str:
    """Create a run with one checkpoint: random weights, larger than usual so that predictions differ between videos."""
    config = recipe_named(f"nano-{stream}")
    run = begin_run(str(folder), f"nano-{stream}", config, dataset=dataset)
    torch.manual_seed(len(stream))
    network = build(config.model, len(dataset.classes), STREAMS[stream].channels)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5 if parameter.dim() > 1 else 1.0)
    writer = CheckpointWriter(run)
    writer.save(0, network, torch.optim.SGD(network.parameters()))
    writer.close()
    return str(folder)


def predict(videos: Sequence[object], rgb: str | None = None, flow: str | None = None, **options: Any) -> PredictResult:
    return predict_files([str(video) for video in videos], rgb, flow, options=PredictOptions(clips=CLIPS, **options))
