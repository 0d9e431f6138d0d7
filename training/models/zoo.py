"""Networks by name: build them and count their parameters and multiply-accumulates."""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import MODELS, ModelConfig
from lgd.training.models.lgd import Network
from lgd.training.models.resnet import EXPANSION
from lgd.training.models.weights import initialize


class ModelSize(NamedTuple):
    """Size of a network for one clip."""

    parameters: int
    """Trainable numbers, without batch statistics and hash functions."""
    gmac: float
    """10^9 multiply-accumulates of the convolutions and linear layers for one clip."""
    input: tuple[int, int, int, int]
    """Channels, frames, height and width of this clip."""


def build(config: ModelConfig, classes: int, channels: int) -> Network:
    """Return the network of `config` with new weights, drawn from torch's global random state.

    channels: 3 for RGB, 2 for flow. Raises UsageError for an unknown name or impossible values."""
    check_model_config(config, classes, channels)
    network = Network(config, classes, channels)
    initialize(network)
    return network


def check_model_config(config: ModelConfig, classes: int, channels: int) -> None:
    """Raise UsageError, one line, for a configuration from which no network can be built."""
    if config.name not in MODELS:
        similar = difflib.get_close_matches(config.name, MODELS, n=3, cutoff=0.4) or list(MODELS)
        raise UsageError(f"unknown model {config.name!r}; did you mean {' or '.join(similar)}? See `lgd models`")
    family = config.family
    if classes < 1 or channels < 1:
        raise UsageError(f"a network needs at least one class and one input channel, not {classes} and {channels}")
    if config.stage not in (1, 2):
        raise UsageError(f"--model.stage must be 1 or 2, not {config.stage}")
    if config.block_variant not in ("lgd", "v1", "v2", "none"):
        raise UsageError(f"--model.variant must be lgd, v1, v2 or none, not {config.variant!r}")
    if config.spatial_stride not in ("3x3", "1x1"):
        raise UsageError(f"--model.spatial-stride must be 3x3 or 1x1, not {config.spatial_stride!r}")
    if config.convolutions not in ("3d", "2d"):
        raise UsageError(f"--model.convolutions must be 3d or 2d, not {config.convolutions!r}")
    pooled = 2 * config.pool1_frames if family.temporal else 1
    if config.clip_frames < 1 or config.clip_frames % pooled:
        raise UsageError(f"{config.name} needs a multiple of {pooled} frames per clip, not {config.clip_frames}")
    min_channels = EXPANSION * family.width
    if config.rank_divisor < 1 or min_channels % config.rank_divisor:
        raise UsageError(f"--model.rank-divisor must divide {min_channels} channels; {config.rank_divisor} does not")
    if config.sketch_dimension < 1:
        raise UsageError(f"--model.sketch-dimension must be 1 or more, not {config.sketch_dimension}")
    if not 0 <= config.dropout < 1:
        raise UsageError(f"--model.dropout must be 0 or more and less than 1, not {config.dropout:g}")


def count(config: ModelConfig, classes: int, channels: int, *, size: int | None = None) -> ModelSize:
    """Return the size of a network for one training clip, counted without allocating it (meta device).

    size: height and width of the clip, pixels; None: those of the family. Raises UsageError as `build` does."""
    check_model_config(config, classes, channels)
    with torch.device("meta"):
        network = Network(dataclasses.replace(config, convolutions="3d"), classes, channels)
    network.to("meta").eval()
    size = size or config.family.size
    shape = (channels, config.clip_frames, size, size)
    macs = 0

    def add_macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight = module.weight
        assert isinstance(weight, Tensor)
        macs += output.numel() * math.prod(weight.shape[1:])

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(add_macs)
    with torch.no_grad():
        network(torch.empty((1, *shape), device="meta"))
    return ModelSize(sum(p.numel() for p in network.parameters()), macs / 1e9, shape)
