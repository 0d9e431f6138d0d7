"""Residual units: the 2D bottleneck of ResNet and its P3D-A form, and the stem before them.

All convolutions work on N x C x T x H x W; in a 2D network the kernels are 1 frame long."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lgd.training.models.convolutions import FlatConv3d
from lgd.training.models.normalization import GroupedBatchNorm3d

EXPANSION = 4
"""Output channels of a bottleneck / channels of its 3x3 convolution."""

Triple = tuple[int, int, int]


class ConvBN(nn.Module):
    """Convolution without bias, padded to keep the size, and batch normalization."""

    def __init__(self, c_in: int, c_out: int, kernel: Triple, *, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = FlatConv3d(c_in, c_out, kernel, stride, padding, bias=False)
        self.bn = GroupedBatchNorm3d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.bn(self.conv(x))
        return normalized


class FramePool(nn.MaxPool3d):
    """Maximum of every k consecutive frames: N x C x T x H x W -> N x C x T / k x H x W.

    Compiled code computes it without the indices that `nn.MaxPool3d` stores, so that it is part of the kernels before
    and after it. Results and gradients are equal, also where frames are: the first of them gets the gradient."""

    def __init__(self, frames: int) -> None:
        super().__init__((frames, 1, 1))
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        if not torch.compiler.is_compiling():
            pooled: Tensor = super().forward(x)
            return pooled
        return first_maximum(x, self.frames)


def first_maximum(x: Tensor, frames: int) -> Tensor:
    """Return the maximum of every `frames` consecutive frames; the first of equal ones gets the gradient, and not a
    number is the maximum, as in `functional.max_pool3d`."""
    parts = x.reshape(*x.shape[:2], x.shape[2] // frames, frames, *x.shape[3:])
    best, *others = parts.unbind(3)
    for other in others:
        best = torch.where((other > best) | other.isnan(), other, best)
    return best


class Stem(nn.Module):
    """conv1 and pool1 (Table 1): N x channels x T x H x W -> N x width x T' x H' x W'.

    With `temporal`, convolutions of 1x7x7 (spatial stride 2) and 3x1x1, then max pooling of `pool_frames` frames into
    one. Without, the stem of a 2D ResNet: a convolution of 1x7x7, then 1x3x3 max pooling with spatial stride 2."""

    def __init__(self, channels: int, width: int, temporal: bool, *, pool_frames: int) -> None:
        super().__init__()
        self.spatial = ConvBN(channels, width, (1, 7, 7), stride=(1, 2, 2))
        self.temporal = ConvBN(width, width, (3, 1, 1)) if temporal else None
        self.pool1 = FramePool(pool_frames) if temporal else nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, video: Tensor) -> Tensor:
        x = functional.relu(self.spatial(video), inplace=True)
        if self.temporal is not None:
            x = functional.relu(self.temporal(x), inplace=True)
        pooled: Tensor = self.pool1(x)
        return pooled


class ResidualUnit(nn.Module):
    """F of eq. 2: a bottleneck with its shortcut, without the final ReLU.

    N x C_in x T x H x W -> N x 4 width x T x H/stride x W/stride. With `temporal` it is the P3D-A unit: the spatial
    1x3x3 convolution is followed by a temporal 3x1x1 one, each with batch normalization and ReLU."""

    def __init__(
        self, c_in: int, width: int, stride: int, *, temporal: bool, spatial_stride: Literal["3x3", "1x1"] = "3x3"
    ) -> None:
        super().__init__()
        c_out = EXPANSION * width
        same, halved = (1, 1, 1), (1, stride, stride)
        first, second = (same, halved) if spatial_stride == "3x3" else (halved, same)
        self.reduce = ConvBN(c_in, width, (1, 1, 1), stride=first)
        self.spatial = ConvBN(width, width, (1, 3, 3), stride=second)
        self.temporal = ConvBN(width, width, (3, 1, 1)) if temporal else None
        self.expand = ConvBN(width, c_out, (1, 1, 1))
        self.shortcut = ConvBN(c_in, c_out, (1, 1, 1), stride=halved) if stride != 1 or c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        x = functional.relu(self.reduce(x), inplace=True)
        x = functional.relu(self.spatial(x), inplace=True)
        if self.temporal is not None:
            x = functional.relu(self.temporal(x), inplace=True)
        residual: Tensor = self.expand(x)
        return residual + identity


@torch.no_grad()
def make_temporal_identity(temporal: ConvBN) -> None:
    """Initialize a temporal convolution and its batch normalization as the identity (center tap 1).

    The scale compensates for the epsilon of the normalization, so that evaluation with new statistics is exact."""
    weight = temporal.conv.weight
    weight.zero_()
    weight[:, :, weight.shape[2] // 2, 0, 0] = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    temporal.bn.reset_running_stats()
    nn.init.constant_(temporal.bn.weight, (1 + temporal.bn.eps) ** 0.5)
    nn.init.zeros_(temporal.bn.bias)
