"""TV-L1 optical flow of many pairs at once with PyTorch: on the CPU (slowly), and on a GPU that cannot use Triton.

The scheme is that of `TVL1Params`, as in numba_solver. All pairs of a batch are solved together, scale by scale and
warp by warp; a pair that has converged does not change any more, so that its flow does not depend on the other pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.torch_pyramid import differentiate, finer_flow, pyramid_of

ITERATIONS_AT_ONCE = 5  # between two checks of which pairs have converged
CHANGE_UNIT = 2.0**-30  # pixels squared; sums of integer multiples are exact in any order of addition


def solve(frames: Tensor, firsts: Tensor, params: TVL1Params) -> Tensor:
    """Compute the flow of pairs of frames, float32 N x 2 x H x W in pixels.

    frames: float32 T x H x W; firsts: the position of the first frame of each pair; its second frame follows it in
    `frames`. The flow of a pair depends only on its two frames."""
    pyramid = pyramid_of(frames, params)
    firsts = firsts.long()
    flow = torch.zeros(len(firsts), 2, *pyramid[-1].shape[-2:], device=frames.device)
    for images in reversed(pyramid):
        flow = finer_flow(flow, *images.shape[-2:], params=params)
        flow = _solve_scale(images[firsts], differentiate(images)[firsts + 1], flow, params=params)
    return flow


def _solve_scale(images: Tensor, seconds: Tensor, u: Tensor, *, params: TVL1Params) -> Tensor:
    """Improve the flow u (N x 2 x H x W) by warps.

    images: the first frames, N x 1 x H x W; seconds: the second frames with their gradients, N x 3 x H x W."""
    px, py = torch.zeros_like(u), torch.zeros_like(u)
    limit = torch.tensor(round(params.epsilon**2 * u.shape[-2] * u.shape[-1] / CHANGE_UNIT), device=u.device)
    for _ in range(params.warps):
        gradient, inverse, residual = _linearize(images, seconds, u)
        active = torch.ones(len(u), 1, 1, 1, dtype=torch.bool, device=u.device)
        for _ in range(params.outer_iterations):
            if params.median_filtering > 1:
                u = torch.where(active, _median(u, params.median_filtering), u)
            for done in range(0, params.inner_iterations, ITERATIONS_AT_ONCE):
                count = min(ITERATIONS_AT_ONCE, params.inner_iterations - done)
                u, px, py, active = _iterate(
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
