"""Predictions for videos: the mean of the class probabilities of uniform clips (the paper's 4.1), in this process.

content = load_checkpoint(run)
network = load_network(run, content, device)
for video in score_rows(network, run.config, dataset, "val", Protocol(clips=15), device):
    video.row, video.probabilities

`training/evaluate.py` does this on a cluster.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import STREAMS, Dataset, StreamSpec
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import UniformOrder
from lgd.pipeline.loading.loader import ClipLoader, LoaderOptions, uniform_loader
from lgd.training import checkpoint
from lgd.training.models.lgd import Network, Output, pool
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig
from lgd.training.run import Run
from lgd.training.scoring.protocol import CheckpointChoice, ExtraColumn, Precision, TestProtocol

CLIPS_PER_BATCH = 16  # in a batch while testing


class VideoScores(NamedTuple):
    """What a network says about one video. Of each view, where they are kept: probabilities, N x classes, and the last
    representations, N x C: GAP(x_L) and g_L, which networks without LGD do not have. All float32."""

    row: int
    """Of the index."""
    probabilities: np.ndarray
    """Mean over the views, classes."""
    clip_probabilities: np.ndarray | None
    local_features: np.ndarray | None
    global_features: np.ndarray | None


@contextlib.contextmanager
def scoring_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Float32 without the short cut that GPUs take, TF32, or bfloat16 as in training."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with autocast(precision, device):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """The scoring_precision that a configuration asks for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@torch.inference_mode()
def score_batches(
    network: Network, loader: ClipLoader, precision: Precision, *, keep: tuple[ExtraColumn, ...] = ()
) -> Iterator[VideoScores]:
    """What the network says about each video that the loader serves, in order. The network is put into evaluation mode.

    The loader's order must be a UniformOrder, and no clip may be left out."""
    network.eval()
    order = loader.order
    assert isinstance(order, UniformOrder)
    waiting: list[list[np.ndarray | None]] = []  # of each view
    for batch in loader:
        with scoring_precision(precision, loader.device):
            output = network(batch.video)
        columns = [column if column is None else column.float().cpu().numpy() for column in _kept(output, keep)]
        for n, position in enumerate(batch.position):
            waiting.append([column if column is None else column[n] for column in columns])
            if len(waiting) == order.views:
                views = [None if parts[0] is None else np.stack(parts) for parts in zip(*waiting, strict=True)]
                probabilities = views[0]
                assert probabilities is not None
                mean = probabilities.mean(axis=0, dtype=np.float64).astype(np.float32)
                clips = probabilities if "clips" in keep else None
                yield VideoScores(int(order.rows[position // order.views]), mean, clips, *views[1:])
                waiting = []


def _kept(output: Output, keep: tuple[ExtraColumn, ...]) -> list[torch.Tensor | None]:
    """Probabilities and representations of the clips of a batch."""
    features = "features" in keep
    local = pool(output.local.float()) if features else None
    return [Network.probabilities(output), local, output.glob if features else None]


def load_checkpoint(run: Run, which: CheckpointChoice = "last") -> dict[str, Any]:
    """A run's newest sound checkpoint, or the best by validation top-1. Raises UserError if there is none, and for a
    best one that is gone or damaged."""
    if which not in get_args(CheckpointChoice):
        raise UsageError(f"--checkpoint is last or best, not {which}")
    folder = run.storage.display()
    if which == "last":
        content = checkpoint.load_latest(run)
        if content is None:
            raise UserError(f"{folder} has no sound checkpoint yet: train it first")
        return content
    try:
        best = checkpoint.best(run)
        name = str(best["checkpoint"]) if best else ""
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{run.storage.display(checkpoint.BEST)} does not name a checkpoint ({error!r}): use --checkpoint last"
        ) from error
    if not name:
        raise UserError(f"{folder} has no best checkpoint, since nothing was validated: use --checkpoint last")
    try:
        return checkpoint.load(run, name)
    except FileNotFoundError as error:
        raise UserError(f"{run.storage.display(name)}, the best checkpoint, is gone: use --checkpoint last") from error


def load_network(
    run: Run, weights: dict[str, torch.Tensor], device: torch.device, *, shown: str = "its checkpoint"
) -> Network:
    """The run's network with these weights (`content["model"]`), in evaluation mode.

    shown: what the error for weights that do not fit calls them."""
    config = run.config
    network = build(config.model, len(run.classes), STREAMS[config.stream].channels)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{shown} does not fit the network that {run.storage.display()} describes") from error
    return network.to(device=device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]


def check_stream_spec(run: Run, dataset: Dataset) -> StreamSpec:
    """The recipe of the dataset's stream that the run is for. Raises UserError for a dataset with other classes or
    another recipe."""
    recipe, stream = dataset.spec(run.config.stream), run.config.stream
    data, trained = dataset.storage.display(), run.storage.display()
    if dataset.classes != run.classes:
        raise UserError(f"{data} has other classes than {trained} was trained on: evaluate on such a dataset")
    if recipe.hash != run.spec_hash:
        raise UserError(
            f"the {stream} stream of {data} was made by another recipe than {trained} was trained on: preprocess it "
            "with the same options"
        )
    return recipe


def score_rows(
    network: Network,
    config: TrainConfig,
    dataset: Dataset,
    *,
    split: str,
    protocol: TestProtocol,
    device: torch.device,
    batch: int = CLIPS_PER_BATCH,
    part: int = 0,
    parts: int = 1,
    threads: int = 1,
    index: Index | None = None,
) -> Iterator[VideoScores]:
    """Scores of the videos of a split, or of one of the equal parts that it is cut into, in the index's order.

    batch: clips at once. threads: that decode. index: see `uniform_loader`.
    Raises UserError for a missing split, a damaged frame (CorruptFrame, which names it) and a GPU without room."""
    loader = uniform_loader(
        dataset,
        config.stream,
        protocol.clips_of(config),
        sampling=config.sampling,
        transform=config.transform,
        split=split,
        max_clips=batch,
        rank=part,
        workers=parts,
        options=LoaderOptions(device, threads=threads),
        crops=protocol.crops,
        index=index,
    )
    try:
        yield from score_batches(network, loader, protocol.precision, keep=protocol.keep)
    except torch.OutOfMemoryError as error:
        raise UserError(f"{batch} clips do not fit into the GPU's memory: give a smaller --batch") from error
    finally:
        loader.close()
