"""Scores of videos, in this process: the mean of the class probabilities of uniform clips (section 4.1 of the paper).

content = load_checkpoint(run)
network = load_network(run, content["model"], device)
for video in score_rows(network, run.config, dataset, split="val", protocol=TestProtocol(clips=15), device=device):
    video.row, video.probabilities

`lgd.training.scoring.evaluate` does the same on a cluster.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import UniformOrder
from lgd.pipeline.loading.loader import ClipLoader, LoaderOptions, frame_aspects, uniform_loader
from lgd.pipeline.loading.transform import MAX_ASPECT
from lgd.pipeline.storage.checked_json import DamagedFile
from lgd.training import checkpoint
from lgd.training.models.convolutions import set_convolutions, usable_convolutions
from lgd.training.models.lgd import Network, Output, pool
from lgd.training.models.zoo import build, check_model_config
from lgd.training.recipes import TrainConfig
from lgd.training.run import CONFIG, Run
from lgd.training.scoring.protocol import CheckpointChoice, ExtraColumn, Precision, TestProtocol
from lgd.training.steps.memory import is_memory_error
from lgd.training.steps.precision import autocast

CLIPS_PER_BATCH = 16  # in testing


class VideoScores(NamedTuple):
    """Scores of one video, all float32. The last three are None unless they were asked for."""

    row: int
    """Row of the video in the index."""
    probabilities: np.ndarray
    """Mean over the views, classes."""
    clip_probabilities: np.ndarray | None
    """Of each view, views x classes."""
    local_features: np.ndarray | None
    """GAP(x_L) of each view, views x C."""
    global_features: np.ndarray | None
    """g_L of each view, views x C; None for networks without LGD."""


@contextlib.contextmanager
def scoring_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in float32 without TF32, which GPUs would use for convolutions, or in bfloat16 as in training."""
    allow_tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with autocast(precision, device):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = allow_tf32


@torch.inference_mode()
def score_batches(
    network: Network, loader: ClipLoader, precision: Precision, *, keep: tuple[ExtraColumn, ...] = ()
) -> Iterator[VideoScores]:
    """Yield the scores of each video of the loader, in order. Puts the network into evaluation mode.

    The loader's order must be a UniformOrder, and the loader must not skip clips."""
    network.eval()
    set_convolutions(network, usable_convolutions(network.config.convolutions, precision, loader.device))
    order = loader.order
    assert isinstance(order, UniformOrder)
    pending: list[list[np.ndarray | None]] = []  # columns of each view of the current video
    for batch in loader:
        with scoring_precision(precision, loader.device):
            output = network(batch.video)
        columns = [column if column is None else column.float().cpu().numpy() for column in _columns(output, keep)]
        for n, position in enumerate(batch.position):
            pending.append([column if column is None else column[n] for column in columns])
            if len(pending) == order.views:
                stacked = [None if values[0] is None else np.stack(values) for values in zip(*pending, strict=True)]
                probabilities = stacked[0]
                assert probabilities is not None
                mean = probabilities.mean(axis=0, dtype=np.float64).astype(np.float32)
                row = int(order.rows[position // order.views])
                if not np.isfinite(mean).all():
                    raise UserError(
                        f"the network predicts NaN for the video {loader.index.key(row)}: its weights are too large or "
                        "damaged: use an earlier checkpoint, or train again with a lower --optimizer.lr"
                    )
                clips = probabilities if "clips" in keep else None
                yield VideoScores(row, mean, clips, *stacked[1:])
                pending = []


def _columns(output: Output, keep: tuple[ExtraColumn, ...]) -> list[torch.Tensor | None]:
    """Return probabilities, local and global representations of the clips of a batch."""
    features = "features" in keep
    local = pool(output.local.float()) if features else None
    return [Network.probabilities(output), local, output.glob if features else None]


def load_checkpoint(run: Run, which: CheckpointChoice = "last") -> dict[str, Any]:
    """Return the content of a run's newest valid checkpoint, or of its best one by validation top-1.

    Raises UserError if there is none, and if the best one is missing or damaged."""
    if which not in get_args(CheckpointChoice):
        raise UsageError(f"--checkpoint must be last or best, not {which}")
    folder = run.storage.display()
    if which == "last":
        content = checkpoint.load_latest(run, resume=False)
        if content is None:
            raise UserError(f"{folder} has no valid checkpoint: train it first")
        return content
    try:
        best = checkpoint.best(run)
    except DamagedFile as error:
        raise UserError(f"{error}: use --checkpoint last, or rerun `lgd train`, which writes it again") from error
    if best is None:
        raise UserError(f"{folder} has no best checkpoint, because nothing was validated: use --checkpoint last")
    name: str = best["checkpoint"]
    try:
        return checkpoint.load(run, name, resume=False)
    except FileNotFoundError as error:
        raise UserError(
            f"{run.storage.display(name)}, the best checkpoint, is missing: use --checkpoint last"
        ) from error


def load_network(
    run: Run, weights: dict[str, torch.Tensor], device: torch.device, *, weights_name: str = "its checkpoint"
) -> Network:
    """Return the run's network with these weights (`content["model"]` of a checkpoint), in evaluation mode.

    weights_name: the name of the weights in messages. Raises UserError for weights of a different network."""
    config = run.config
    classes, channels = len(run.classes), STREAMS[config.stream].channels
    try:
        with torch.device("meta"):  # without memory: the description of a run may ask for any size
            check_model_config(config.model, classes, channels)
            expected = Network(config.model, classes, channels).state_dict()
    except (UsageError, RuntimeError, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{run.storage.display(CONFIG)} describes an impossible network ({reason})") from error
    if {name: (value.shape, value.dtype) for name, value in expected.items()} != {
        name: (value.shape, value.dtype) for name, value in weights.items()
    }:
        raise UserError(f"{weights_name} does not match the network that {run.storage.display()} describes")
    network = build(config.model, classes, channels)
    network.load_state_dict(weights)
    network.to(device=device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in PyTorch's stubs
    return network.eval()


def check_dataset(run: Run, dataset: Dataset) -> None:
    """Raise UserError for a dataset with different classes, or whose stream has a different spec, than the training
    data of the run."""
    spec, stream = dataset.spec(run.config.stream), run.config.stream
    data, folder = dataset.storage.display(), run.storage.display()
    if dataset.classes != run.classes:
        raise UserError(
            f"{data} and the training data of {folder} have different classes: evaluate on a dataset with the classes "
            "that the run was trained on"
        )
    if spec.hash != run.spec_hash:
        raise UserError(
            f"the {stream} stream of {data} was preprocessed with different settings than the training data of "
            f"{folder} ({'; '.join(run.stream_spec.differences(spec))}): preprocess it with the same options"
        )


def score_rows(
    network: Network,
    config: TrainConfig,
    dataset: Dataset,
    *,
    split: str,
    protocol: TestProtocol,
    device: torch.device,
    batch_size: int = CLIPS_PER_BATCH,
    chunk: int = 0,
    chunks: int = 1,
    threads: int = 1,
    index: Index | None = None,
) -> Iterator[VideoScores]:
    """Yield the scores of the videos of a split, or of one of `chunks` equal chunks of it, in the index's order.

    batch_size: clips per batch. threads: that decode. index: see `uniform_loader`. Prints a line if only the middle of
    some videos was scored, because their frames are longer than MAX_ASPECT.
    Raises UserError for a missing split, a damaged frame (CorruptFrame, which names it) and insufficient memory."""
    loader = uniform_loader(
        dataset,
        config.stream,
        protocol.clips_of(config),
        sampling=config.sampling,
        transform=config.transform,
        split=split,
        max_clips=batch_size,
        rank=chunk,
        workers=chunks,
        options=LoaderOptions(device, threads=threads),
        crops=protocol.crops,
        index=index,
    )
    cropped = 0
    too_long = (frame_aspects(loader.index) > MAX_ASPECT) & (protocol.crops == 1)
    try:
        for video in score_batches(network, loader, protocol.precision, keep=protocol.keep):
            cropped += int(too_long[video.row])
            yield video
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        memory = "the GPU's memory" if device.type == "cuda" else "memory"
        raise UserError(f"{batch_size} clips do not fit into {memory}: use a smaller --batch-size") from error
    finally:
        loader.close()
    if cropped:
        say(
            f"videos of which only the middle was scored, because their frames are longer than {MAX_ASPECT}:1: "
            f"{cropped}; --crops 3 scores both ends as well, in squares"
        )
