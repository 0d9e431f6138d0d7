"""Networks by name: build one, and count its parameters and multiply-accumulates."""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import MODELS, Family, ModelConfig, Variant
from lgd.training.models.lgd import Network
from lgd.training.models.resnet import EXPANSION
from lgd.training.models.weights import initialize

__all__ = ["MODELS", "Family", "ModelConfig", "ModelSize", "Variant", "build", "count", "listing"]


class ModelSize(NamedTuple):
    """Size of a network for one clip."""

    parameters: int
    """Trainable numbers; batch statistics and hash functions are not among them."""
    gmac: float
    """10^9 multiply-accumulates of the convolutions and linear layers for one clip."""
    input: tuple[int, int, int, int]
    """Channels, frames, height, width of that clip."""


def build(config: ModelConfig, classes: int, channels: int) -> Network:
    """The network of `config`, initialized from scratch from torch's global random state.

    `channels` is 3 for RGB, 2 for flow. Raises UsageError for an unknown name or impossible values.
    """
    check_model_config(config, classes, channels)
    network = Network(config, classes, channels)
    initialize(network)
    return network


def check_model_config(config: ModelConfig, classes: int, channels: int) -> None:
    """Raise UsageError, in one line, for a configuration that makes no network."""
    if config.name not in MODELS:
        near = difflib.get_close_matches(config.name, MODELS, n=3, cutoff=0.4) or list(MODELS)
        raise UsageError(f"no model is called {config.name!r}; did you mean {' or '.join(near)}? See `lgd models`")
    family = config.family
    if classes < 1 or channels < 1:
        raise UsageError(f"a network needs at least one class and one input channel, not {classes} and {channels}")
    if config.stage not in (1, 2):
        raise UsageError(f"the training stage is 1 or 2, not {config.stage}")
    if config.block_variant not in ("lgd", "v1", "v2", "none"):
        raise UsageError(f"the block variant is lgd, v1, v2 or none, not {config.variant!r}")
    if config.spatial_stride not in ("3x3", "1x1"):
        raise UsageError(f"the spatial stride is on the 3x3 or the 1x1 convolution, not on {config.spatial_stride!r}")
    pooled = 2 * config.pool1_frames if family.temporal else 1
    if config.clip_frames < 1 or config.clip_frames % pooled:
        raise UsageError(f"{config.name} needs a multiple of {pooled} frames a clip, not {config.clip_frames}")
    narrowest = EXPANSION * family.width
    if config.rank_divisor < 1 or narrowest % config.rank_divisor:
        raise UsageError(f"the rank divisor must divide {narrowest} channels; {config.rank_divisor} does not")
    if config.sketch_dimension < 1:
        raise UsageError(f"the sketch dimension must be at least 1, not {config.sketch_dimension}")


def count(config: ModelConfig, classes: int, channels: int, *, size: int | None = None) -> ModelSize:
    """Parameters and GMACs of one training clip, counted from a network without storage (meta device).

    size: height and width of the clip, pixels; by default the family's.

    Raises UsageError as `build` does.
    """
    check_model_config(config, classes, channels)
    with torch.device("meta"):
        network = Network(dataclasses.replace(config, checkpoint_activations=False), classes, channels)
    network.to("meta").eval()
    size = size or config.family.size
    shape = (channels, config.clip_frames, size, size)
    macs = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight = module.weight
        assert isinstance(weight, Tensor)
        macs += output.numel() * math.prod(weight.shape[1:])

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(add)
    with torch.no_grad():
        network(torch.empty((1, *shape), device="meta"))
    return ModelSize(sum(p.numel() for p in network.parameters()), macs / 1e9, shape)


def listing(classes: int) -> list[dict[str, Any]]:
    """Every family at both training stages, 3D ones at 16 and 128 frames, for RGB: the rows of `lgd models`."""
    rows = []
    for name, family in MODELS.items():
        for frames in (16, 128) if family.temporal else (family.frames,):
            for stage in (1, 2):
                size = count(ModelConfig(name=name, stage=stage, frames=frames), classes, channels=3)  # type: ignore[arg-type]
                row = {"name": name, "stage": stage, "classes": classes, "parameters": size.parameters}
                rows.append(row | {"gmac": round(size.gmac, 4), "input": list(size.input)})
    return rows
