"""The weights that a run starts from: new ones, an ImageNet ResNet's, or those of another run."""

import os
from dataclasses import replace

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.storage.storage import Storage
from lgd.training import checkpoint
from lgd.training.models.lgd import Network
from lgd.training.models.weights import load_imagenet, transfer
from lgd.training.recipes import TrainConfig
from lgd.training.run import open_run


def located(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths, which mean the same on every worker.

    Raises UserError if a file is not there, and UsageError if there are two things to start from, or none for
    stage 2."""
    if config.init_from and config.imagenet:
        raise UsageError("a run starts from --init-from or from --imagenet, not from both")
    if config.model.stage == 2 and not config.init_from:
        raise UsageError("stage 2 tunes a network of stage 1: give its run folder with --init-from")
    changes = {}
    for option in ("init_from", "imagenet"):
        path = getattr(config, option)
        if path and "://" not in path:
            if not os.path.exists(path):
                raise UserError(f"there is no {path}: --{option.replace('_', '-')} takes a file that is there")
            changes[option] = os.path.abspath(path)
    return replace(config, **changes)


def start_weights(network: Network, config: TrainConfig, classes: tuple[str, ...]) -> str:
    """Puts the weights that the configuration names into a fresh network; returns what became of them, for a person.

    From another run everything that both networks have is taken over: stage 1 into stage 2, 16 frames into 128, RGB
    into flow; the heads only where the list of classes is the same.
    Raises UserError for a file that does not fit the network."""
    if config.imagenet:
        return str(load_imagenet(network, config.imagenet))
    if config.init_from:
        content = _content(config.init_from)
        same_classes = checkpoint.classes_of(content) == classes
        return str(transfer(network, content["model"], heads=same_classes, source=config.init_from))
    return ""


def _content(path: str) -> dict:
    """The checkpoint in a file, or the newest one of a run folder."""
    if not os.path.isdir(path):
        folder, name = os.path.split(path)
        return checkpoint.read(Storage(folder), name)
    content = checkpoint.load_latest(open_run(path))
    if content is None:
        raise UserError(f"{path} has no sound checkpoint yet: train it first")
    return content
