"""3D convolutions with flat kernels, computed as 2D convolutions.

All kernels of the networks are flat: 1 x k x k, 3 x 1 x 1 or 1 x 1 x 1. In channels-last memory, a video
N x C x T x H x W is, without a copy, also N T frames of C x H x W, N images of C x T x (H W), and a matrix of N T H W
rows and C columns. GPU libraries compute 2D convolutions and matrix products faster, and have done so for longer, than
3D convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from lgd.training.models.config import Convolutions


class FlatConv3d(nn.Conv3d):
    """`nn.Conv3d` with a flat kernel and without bias; with `as_2d` it is computed as a 2D convolution.

    Weights and results are the same, apart from rounding."""

    as_2d = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, N x C_out x T' x H' x W'."""
        if not self.as_2d:
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        frames, height, width = self.kernel_size
        if frames > 1:
            assert (height, width) == (1, 1)
            assert self.stride == (1, 1, 1)
            return self._over_frames(x)
        assert self.stride[0] == 1
        if (height, width) == (1, 1) and self.stride == (1, 1, 1):
            return self._over_rows(x)
        return self._in_frames(x)

    def _over_rows(self, x: Tensor) -> Tensor:
        """1 x 1 x 1: a product of matrices."""
        rows = functional.linear(as_rows(x), self.weight.flatten(1))
        return rows.permute(0, 4, 1, 2, 3)

    def _in_frames(self, x: Tensor) -> Tensor:
        """1 x k x k: a convolution of each frame."""
        frames = functional.conv2d(
            as_frames(x), self.weight.squeeze(2), stride=self.stride[1:], padding=self.padding[1:]
        )
        frames = frames.reshape(x.shape[0], x.shape[2], *frames.shape[1:])
        return frames.transpose(1, 2)

    def _over_frames(self, x: Tensor) -> Tensor:
        """3 x 1 x 1: a convolution over the frames at each position."""
        images = functional.conv2d(as_images(x), self.weight.squeeze(4), padding=(int(self.padding[0]), 0))
        return images.reshape(*images.shape[:3], *x.shape[3:])


def as_rows(x: Tensor) -> Tensor:
    """View a channels-last video as rows of channels: N x C x T x H x W -> N x T x H x W x C, contiguous."""
    return x.permute(0, 2, 3, 4, 1)


def as_frames(x: Tensor) -> Tensor:
    """View a channels-last video as its frames: N x C x T x H x W -> N T x C x H x W, channels-last."""
    return x.transpose(1, 2).flatten(0, 1)


def as_images(x: Tensor) -> Tensor:
    """View a channels-last video as images of frames and positions: N x C x T x H x W -> N x C x T x (H W)."""
    return x.flatten(3)


def set_convolutions(network: nn.Module, convolutions: Convolutions) -> None:
    """Set how the convolutions of a network are computed."""
    for module in network.modules():
        if isinstance(module, FlatConv3d):
            module.as_2d = convolutions == "2d"


FIRST_CUDNN = 91500
"""First version of cuDNN, 9.15, whose 3D convolutions in bfloat16 are right and fast: with earlier ones, PyTorch uses
kernels that are 10 to 20 times slower, or gradients are wrong (PyTorch issues 163539 and 166643)."""


def usable_convolutions(convolutions: Convolutions, precision: str, device: torch.device) -> Convolutions:
    """Return how convolutions are computed on a device: 2d instead of 3d where the 3D convolutions of its cuDNN are
    unsuitable."""
    if device.type != "cuda" or precision != "bfloat16":
        return convolutions
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return "2d" if version is None or version < FIRST_CUDNN else convolutions
