"""Initial weights of a run: new, from an ImageNet ResNet, or from another run."""

import os
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.paths import check_file
from lgd.pipeline.storage.storage import Storage, absolute_path, folder_and_name
from lgd.training import checkpoint
from lgd.training.config_file import option_name
from lgd.training.models.frozen import check_freeze_until
from lgd.training.models.lgd import Network
from lgd.training.models.weights import LoadReport, load_imagenet, transfer
from lgd.training.recipes import FINE_TUNING, TrainConfig
from lgd.training.run import CONFIG, open_run
from lgd.training.steps.optimizer import set_new_heads


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the configuration with absolute paths of --init-from and --imagenet, valid on every node.

    Raises UserError if a file is missing, and UsageError for both options together, for stage 2 without --init-from,
    and for --freeze-until without initial weights or with a stage that the network does not have.
    """
    if config.init_from and config.imagenet:
        raise UsageError("give --init-from or --imagenet, not both")
    if "" in (config.init_from, config.imagenet):
        raise UsageError("--init-from and --imagenet need the name of a file or run folder")
    if config.model.stage == 2 and not config.init_from:
        raise UsageError("stage 2 starts from a network of stage 1: give its run folder with --init-from")
    check_freeze_until(config.model, config.freeze_until)
    if config.freeze_until != "none" and not (config.init_from or config.imagenet):
        raise UsageError(
            f"--freeze-until {config.freeze_until} keeps the initial weights of the parts before it: give these "
            "weights with --init-from or --imagenet"
        )
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


def check_initial_run(recipe: str, config: TrainConfig, run: str) -> None:
    """Check --init-from before a new run starts. recipe: name. run: folder of the new run.

    Prints a warning for a flow network that starts from an RGB run. Raises UsageError if the recipe needs --init-from,
    and UserError for a run of another depth, and for a flow run if the stream is rgb. An existing run has its weights
    already and is not checked."""
    if Storage(run).exists(CONFIG):
        return
    if recipe in FINE_TUNING and not config.init_from:
        raise UsageError(
            f"{recipe} starts from a run on another dataset: give the folder of a {config.stream} run of "
            f"{config.model.name} with --init-from"
        )
    if not config.init_from or not Storage(config.init_from).exists(CONFIG):
        return  # `start_weights` checks the weights of a checkpoint file
    source = open_run(config.init_from).config
    _check_stream(source.stream, config)
    theirs, ours = source.model.family, config.model.family
    if (theirs.blocks, theirs.width) != (ours.blocks, ours.width):
        raise UserError(
            f"--init-from {config.init_from} is a run of {source.model.name}, but {config.model.name} is trained: give "
            f"a run of {config.model.name}"
        )
    if (source.stream, config.stream) == ("rgb", "flow"):
        say(
            f"warning: --init-from {config.init_from} is an RGB run: conv1 of the flow network becomes the mean over "
            "its color channels; a flow run is the better start"
        )


def _check_stream(stream: str | None, config: TrainConfig) -> None:
    """Raise UserError for initial weights of the stream flow in a network for another stream."""
    if stream == "flow" and config.stream != "flow":
        raise UserError(
            f"--init-from {config.init_from} is a flow run, but the stream {config.stream} is trained: give an "
            f"{config.stream} run"
        )


def start_weights(network: Network, config: TrainConfig, classes: tuple[str, ...]) -> LoadReport | None:
    """Load the initial weights that a configuration names into a new network, and return what was loaded.

    From another run, every tensor that both networks have is loaded (stage 1 into stage 2, 16 frames into 128, RGB into
    flow), the heads only if the classes are the same. Returns None if the weights stay new.
    Raises UserError for a file that does not fit the network."""
    if config.imagenet:
        return load_imagenet(network, config.imagenet)
    if config.init_from:
        content = _read_checkpoint(config.init_from)
        _check_stream(checkpoint.checkpoint_stream(content), config)
        same_classes = checkpoint.checkpoint_classes(content) == classes
        return transfer(network, content["model"], heads=same_classes, source=config.init_from)
    return None


def share_start(network: Network, optimizer: torch.optim.Optimizer, report: LoadReport | None, *, workers: int) -> None:
    """Let every worker start as rank 0 does. report: result of `start_weights`, on rank 0.

    DistributedDataParallel copies the parameters from rank 0, but not the statistics of batch normalization, which
    frozen parts need, in every version of PyTorch."""
    new: list[Any] = [None if report is None else report.new]
    if workers > 1:
        dist.broadcast_object_list(new, src=0)
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
    if new[0] is not None:
        set_new_heads(network, optimizer, new[0])


def _read_checkpoint(path: str) -> dict[str, Any]:
    """Return the content of a checkpoint file, or of the newest checkpoint of a run folder."""
    if not Storage(path).exists(CONFIG):
        folder, name = folder_and_name(path)
        return checkpoint.read(folder, name)
    content = checkpoint.load_latest(open_run(path), resume=False)
    if content is None:
        raise UserError(f"{path} has no valid checkpoint: train it first")
    return content
