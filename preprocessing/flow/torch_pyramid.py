"""Tensor operations that the solvers for a GPU share: image pyramids, resampling, gradients.

Nothing here waits for the device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lgd.preprocessing.flow.params import TVL1Params

MIN_SIDE = 16  # pixels: minimum side of a reduced scale


def pyramid_of(frames: Tensor, params: TVL1Params) -> list[Tensor]:
    """Return frames (T x H x W) at each scale, the finest first: T x 1 x H x W."""
    pyramid = [frames[:, None]]
    for _ in range(params.scales - 1):
        height, width = (round(side * params.scale_step) for side in pyramid[-1].shape[-2:])
        if min(height, width) < MIN_SIDE:
            break
        pyramid.append(resize(pyramid[-1], height, width, step_y=1 / params.scale_step, step_x=1 / params.scale_step))
    return pyramid


def finer_flow(flow: Tensor, height: int, width: int, *, params: TVL1Params) -> Tensor:
    """Return a flow (N x 2 x H x W, in pixels) at the size of the next finer scale, in that scale's pixels."""
    rows, columns = flow.shape[-2:]
    if (rows, columns) == (height, width):
        return flow
    return resize(flow, height, width, step_y=rows / height, step_x=columns / width) * (1 / params.scale_step)


def differentiate(images: Tensor) -> Tensor:
    """N x 1 x H x W -> N x 3 x H x W: gray value, central differences in x and y; borders are repeated."""
    wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
    in_x = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    in_y = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return torch.cat([images, in_x, in_y], dim=1)


def resize(images: Tensor, height: int, width: int, *, step_y: float, step_x: float) -> Tensor:
    """Bilinear resampling, pixel centers at half-integers: target pixel t lies at (t + 1/2) step - 1/2."""

    def positions(count: int, step: float, old: int) -> tuple[Tensor, Tensor, Tensor]:
        # Computed on the device: a copy from the host would wait for everything that the device has to do.
        at = (torch.arange(count, dtype=torch.float64, device=images.device) + 0.5) * step - 0.5
        at = at.clamp(0, old - 1)
        before = at.long()
        return before, (before + 1).clamp(max=old - 1), (at - before).float()

    upper, lower, fraction_y = positions(height, step_y, images.shape[-2])
    left, right, fraction_x = positions(width, step_x, images.shape[-1])
    rows = images[..., upper, :] + fraction_y[:, None] * (images[..., lower, :] - images[..., upper, :])
    return rows[..., left] + fraction_x * (rows[..., right] - rows[..., left])
