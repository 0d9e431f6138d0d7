"""The different convolutions of all networks, for tests."""

from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from lgd.training.models.config import MODELS, ModelConfig
from lgd.training.models.lgd import Network


class Layer(NamedTuple):
    """A convolution without its weights."""

    c_in: int
    c_out: int
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]

    @property
    def padding(self) -> tuple[int, int, int]:
        frames, height, width = self.kernel
        return frames // 2, height // 2, width // 2


@cache
def all_layers() -> list[Layer]:
    """Return each convolution of any network once."""
    found = set(layers_of(ModelConfig("lgd3d_r50"), 2))  # flow
    for name in MODELS:
        if "r101" not in name:  # more of the same units
            for spatial_stride in ("3x3", "1x1"):
                found |= set(layers_of(ModelConfig(name, spatial_stride=spatial_stride), 3))
    return sorted(found)


def layers_of(config: ModelConfig, channels: int) -> list[Layer]:
    """Return the convolutions of a network, in its order."""
    with torch.device("meta"):
        network = Network(config, classes=2, channels=channels)
    return [
        Layer(module.in_channels, module.out_channels, module.kernel_size, module.stride)  # type: ignore[arg-type]
        for module in network.modules()
        if isinstance(module, nn.Conv3d)
    ]
