"""Initial weights of a run: new, from an ImageNet ResNet, or from another run."""

import os
from dataclasses import replace
from typing import Any

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.storage.paths import check_file
from lgd.pipeline.storage.storage import Storage, absolute_path, folder_and_name
from lgd.training import checkpoint
from lgd.training.config_file import option_name
from lgd.training.models.lgd import Network
from lgd.training.models.weights import load_imagenet, transfer
from lgd.training.recipes import TrainConfig
from lgd.training.run import CONFIG, open_run


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the configuration with absolute paths of --init-from and --imagenet, valid on every node.

    Raises UserError if a file is missing, and UsageError for both options together or for stage 2 without --init-from.
    """
    if config.init_from and config.imagenet:
        raise UsageError("give --init-from or --imagenet, not both")
    if "" in (config.init_from, config.imagenet):
        raise UsageError("--init-from and --imagenet need the name of a file or run folder")
    if config.model.stage == 2 and not config.init_from:
        raise UsageError("stage 2 starts from a network of stage 1: give its run folder with --init-from")
    changes: dict[str, Any] = {}
    for field in ("init_from", "imagenet"):
        path = getattr(config, field)
        if path and "://" not in path:
            changes[field] = absolute_path(path)
            if not os.path.exists(changes[field]):
                raise UserError(f"{option_name(field)}: {path} does not exist")
            if field == "imagenet" or not os.path.isdir(changes[field]):
                check_file(changes[field], path)
    return replace(config, **changes)


def start_weights(network: Network, config: TrainConfig, classes: tuple[str, ...]) -> str:
    """Load the initial weights that a configuration names into a new network, and describe what was loaded.

    From another run, every tensor that both networks have is loaded (stage 1 into stage 2, 16 frames into 128, RGB into
    flow), the heads only if the classes are the same. Returns "" if the weights stay new.
    Raises UserError for a file that does not fit the network."""
    if config.imagenet:
        return str(load_imagenet(network, config.imagenet))
    if config.init_from:
        content = _read_checkpoint(config.init_from)
        same_classes = checkpoint.checkpoint_classes(content) == classes
        return str(transfer(network, content["model"], heads=same_classes, source=config.init_from))
    return ""


def _read_checkpoint(path: str) -> dict[str, Any]:
    """Return the content of a checkpoint file, or of the newest checkpoint of a run folder."""
    if not Storage(path).exists(CONFIG):
        folder, name = folder_and_name(path)
        return checkpoint.read(folder, name)
    content = checkpoint.load_latest(open_run(path), resume=False)
    if content is None:
        raise UserError(f"{path} has no valid checkpoint: train it first")
    return content
