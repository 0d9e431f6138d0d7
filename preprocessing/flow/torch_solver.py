"""TV-L1 optical flow of many pairs at once with PyTorch, on a GPU or (slowly) on the CPU.

The scheme is that of `TVL1Params`, as in numba_solver. All pairs of a clip are solved together, scale by scale and warp
by warp; a pair that has converged does not change any more, so that its flow does not depend on the other pairs. On a
GPU the iterations and the median filter are compiled into a few kernels each: launching their dozens of operations
separately would take longer than computing them.
"""

import functools
import importlib.util
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lgd.pipeline.console.errors import UsageError
from lgd.preprocessing.flow.params import TVL1Params

MIN_SIDE = 16  # pixels: minimum side of a reduced scale
PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**23}  # in all pairs that are solved together; about 200 bytes each
ITERATIONS_AT_ONCE = 5  # between two checks of which pairs have converged
CHANGE_UNIT = 2.0**-30  # pixels squared; sums of integer multiples are exact in any order of addition


def flow_of_clip(frames: np.ndarray, params: TVL1Params, device: str | None) -> np.ndarray:
    """Return the flow of a clip: uint8 T x H x W -> float32 (T - 1) x H x W x 2; see `tvl1.compute_flow`.

    Raises UsageError for a device that does not exist.
    """
    torch_device = _torch_device(device)
    iterate, median = _compiled_for(torch_device.type)
    at_once = max(1, PIXELS_AT_ONCE[torch_device.type] // (frames.shape[1] * frames.shape[2]))
    flow = np.empty((len(frames) - 1, *frames.shape[1:], 2), np.float32)
    with torch.no_grad():
        for start in range(0, len(flow), at_once):
            batch = torch.tensor(frames[start : start + at_once + 1], device=torch_device).float()
            pairs = _solve(batch, params, iterate, median=median)
            flow[start : start + at_once] = pairs.movedim(1, -1).cpu().numpy()
    return flow


def _torch_device(name: str | None) -> torch.device:
    """Return the device of that name; without a name, the GPU if there is one. Raises UsageError."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: choose cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"the torch flow backend runs on cpu or cuda, not on {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"this machine has no device {name!r}: {torch.cuda.device_count()} GPUs are visible")
    return device


# (u, px, py, keywords) -> (u, px, py, active), see `_iterate`; (u, size) -> u, see `_median`.
Iterate = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
Median = Callable[[Tensor, int], Tensor]


@functools.cache
def _compiled_for(device_type: str) -> tuple[Iterate, Median]:
    """Return `_iterate` and `_median`, compiled for a GPU if Triton is installed."""
    if device_type == "cpu" or not importlib.util.find_spec("triton"):
        return _iterate, _median
    # One set of kernels for the different shapes of scales and clips.
    return torch.compile(_iterate, dynamic=True), torch.compile(_median, dynamic=True)


def _solve(frames: Tensor, params: TVL1Params, iterate: Iterate, *, median: Median) -> Tensor:
    """Compute the flow of frames: T x H x W -> (T - 1) x 2 x H x W."""
    pyramid = [frames[:, None]]
    for _ in range(params.scales - 1):
        height, width = (round(side * params.scale_step) for side in pyramid[-1].shape[-2:])
        if min(height, width) < MIN_SIDE:
            break
        pyramid.append(_resize(pyramid[-1], height, width, step_y=1 / params.scale_step, step_x=1 / params.scale_step))

    flow = torch.zeros(len(frames) - 1, 2, *pyramid[-1].shape[-2:], device=frames.device)
    for images in reversed(pyramid):
        height, width = images.shape[-2:]
        rows, columns = flow.shape[-2:]
        if (rows, columns) != (height, width):
            flow = _resize(flow, height, width, step_y=rows / height, step_x=columns / width) * (1 / params.scale_step)
        flow = _solve_scale(images, flow, params, iterate=iterate, median=median)
    return flow


def _solve_scale(images: Tensor, u: Tensor, params: TVL1Params, *, iterate: Iterate, median: Median) -> Tensor:
    """Improve the flow u (N x 2 x H x W) between images (N + 1 x 1 x H x W) by warps."""
    seconds = _differentiate(images)[1:]
    px, py = torch.zeros_like(u), torch.zeros_like(u)
    limit = torch.tensor(round(params.epsilon**2 * u.shape[-2] * u.shape[-1] / CHANGE_UNIT), device=u.device)
    for _ in range(params.warps):
        gradient, inverse, residual = _linearize(images[:-1], seconds, u)
        active = torch.ones(len(u), 1, 1, 1, dtype=torch.bool, device=u.device)
        for _ in range(params.outer_iterations):
            if params.median_filtering > 1:
                u = torch.where(active, median(u, params.median_filtering), u)
            for done in range(0, params.inner_iterations, ITERATIONS_AT_ONCE):
                count = min(ITERATIONS_AT_ONCE, params.inner_iterations - done)
                u, px, py, active = iterate(
                    u, px, py,
                    active=active, gradient=gradient, inverse=inverse, residual=residual, count=count, limit=limit,
                    lambda_=params.lambda_, theta=params.theta, tau=params.tau,
                )  # fmt: skip
                if not active.any():
                    break
            if not active.any():
                break
    return u


def _iterate(
    u: Tensor, px: Tensor, py: Tensor, *, active: Tensor, gradient: Tensor, inverse: Tensor, residual: Tensor,
    count: int, limit: Tensor, lambda_: float, theta: float, tau: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Run `count` primal-dual iterations of the active pairs; a pair is done when one changes its flow by <= limit.

    Only elementwise products and sums, whose rounding does not depend on the position of a pixel in the batch.
    """
    step = tau / theta
    for _ in range(count):
        # The thresholding step of Zach et al. 2007 (Proposition 3), written as one clamp.
        d = (residual + (gradient * u).sum(1, keepdim=True)) * inverse
        d = d.clamp(-lambda_ * theta, lambda_ * theta)
        divergence = px - F.pad(px, (1, -1)) + py - F.pad(py, (0, 0, 1, -1))
        new = u - d * gradient + divergence * theta
        right = F.pad(new[..., 1:] - new[..., :-1], (0, 1))
        down = F.pad(new[..., 1:, :] - new[..., :-1, :], (0, 0, 0, 1))
        norm = torch.sqrt(right * right + down * down) * step + 1
        px = torch.where(active, (px + right * step) / norm, px)
        py = torch.where(active, (py + down * step) / norm, py)
        change = ((new - u) * (new - u) * (1 / CHANGE_UNIT)).clamp(max=2.0**38).long().sum((1, 2, 3), keepdim=True)
        u = torch.where(active, new, u)
        active = active & (change > limit)
    return u, px, py, active


def _linearize(images: Tensor, seconds: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of the warped second images, 1 / its square, and the residual at zero flow.

    seconds: second images with their gradients. The gradient and its inverse are 0 where u points outside the image.
    """
    height, width = u.shape[-2:]
    to_x = u[:, 0] + torch.arange(width, device=u.device)
    to_y = u[:, 1] + torch.arange(height, device=u.device)[:, None]
    inside = ((to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1))[:, None]
    grid = torch.stack([2 * to_x / max(width - 1, 1) - 1, 2 * to_y / max(height - 1, 1) - 1], dim=-1)
    warped = F.grid_sample(seconds, grid, mode="bicubic", padding_mode="border", align_corners=True)
    gradient = torch.where(inside, warped[:, 1:], 0)
    squared = (gradient * gradient).sum(1, keepdim=True)
    inverse = torch.where(squared > 1e-7, 1 / squared, 0)
    residual = warped[:, :1] - (gradient * u).sum(1, keepdim=True) - images
    return gradient, inverse, residual


def _differentiate(images: Tensor) -> Tensor:
    """N x 1 x H x W -> N x 3 x H x W: gray value, central differences in x and y; borders are repeated."""
    wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
    in_x = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    in_y = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return torch.cat([images, in_x, in_y], dim=1)


def _resize(images: Tensor, height: int, width: int, *, step_y: float, step_x: float) -> Tensor:
    """Bilinear resampling, pixel centers at half-integers: target pixel t lies at (t + 1/2) step - 1/2."""

    def positions(count: int, step: float, old: int) -> tuple[Tensor, Tensor, Tensor]:
        at = ((torch.arange(count, dtype=torch.float64) + 0.5) * step - 0.5).clamp(0, old - 1)
        before = at.long()
        after = (before + 1).clamp(max=old - 1)
        return before.to(images.device), after.to(images.device), (at - before).float().to(images.device)

    upper, lower, fraction_y = positions(height, step_y, images.shape[-2])
    left, right, fraction_x = positions(width, step_x, images.shape[-1])
    rows = images[..., upper, :] + fraction_y[:, None] * (images[..., lower, :] - images[..., upper, :])
    return rows[..., left] + fraction_x * (rows[..., right] - rows[..., left])


def _median(u: Tensor, size: int) -> Tensor:
    """Apply a median filter of size x size pixels (3 or 5); borders are repeated. See numba_median for the method."""
    reach = size // 2
    wide = F.pad(u, (reach, reach, reach, reach), mode="replicate")
    height, width = u.shape[-2:]
    columns = _sorted([wide[..., i : i + height, :] for i in range(size)])
    low_to_high = [_sorted([column[..., j : j + width] for j in range(size)]) for column in columns]
    if size == 3:
        return _sorted([low_to_high[0][2], low_to_high[1][1], low_to_high[2][0]])[1]
    low = _largest([low_to_high[i][3 - i] for i in range(4)])
    high = _smallest([low_to_high[i][5 - i] for i in range(1, 5)])
    mid = _sorted([low_to_high[i][4 - i] for i in range(5)])
    low, high = torch.minimum(low, high), torch.maximum(low, high)
    return _smallest([mid[3], torch.maximum(mid[2], low), torch.maximum(mid[1], high)])


def _sorted(values: list[Tensor]) -> list[Tensor]:
    """Sort 3 or 5 tensors elementwise with a sorting network."""
    networks = {
        3: ((0, 1), (1, 2), (0, 1)),
        5: ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2)),
    }
    values = list(values)
    for a, b in networks[len(values)]:
        values[a], values[b] = torch.minimum(values[a], values[b]), torch.maximum(values[a], values[b])
    return values


def _largest(values: list[Tensor]) -> Tensor:
    return torch.stack(values).amax(0)


def _smallest(values: list[Tensor]) -> Tensor:
    return torch.stack(values).amin(0)
