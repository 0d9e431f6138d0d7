"""TV-L1 optical flow of many pairs at once with Triton kernels, on a GPU.

The scheme is that of `TVL1Params`, as in numba_solver. The pairs of a batch are solved scale by scale. Within a scale
each pair goes through its warps and iterations independently of the others, see triton_kernels: the host launches steps
of some five iterations and asks, once per LOOK_ITERATIONS iterations, whether any pair has work left.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lgd.preprocessing.flow import triton_kernels as kernels
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.torch_pyramid import differentiate, finer_flow, pyramid_of

LOOK_ITERATIONS = 20  # of every pair between two looks of the host
COUNTS = (4, 5, 6)  # iterations in a step that are considered, see `iterations_per_step`
USUAL_ITERATIONS = 20  # of a warp: the mean over real videos at 160 x 120 and 340 x 256
LOADS = 2.5  # time to load and store a tile, in iterations of it (an estimate)
PAIRS_PER_BLOCK = 128  # in the kernel `advance`


@dataclass(frozen=True)
class Tiles:
    """Sizes of the tiles that a block of threads computes, height x width in pixels, powers of 2.

    iterate: of the iterations; more pixels than 64 x 64 do not fit the registers of a GPU. prepare: of the median
    filter and warping. iterate_warps: groups of 32 threads that compute a tile of the iterations."""

    iterate: tuple[int, int] = (64, 64)
    prepare: tuple[int, int] = (8, 32)
    iterate_warps: int = 16  # 128 registers a thread, all of a multiprocessor's


@dataclass(frozen=True)
class Solved:
    """The flow of a batch of pairs.

    flow: float32 pairs x 2 x H x W, in pixels. iterations: int32 scales x pairs, those of each pair, the coarsest scale
    first. Both are on the device and may not be computed yet."""

    flow: Tensor
    iterations: Tensor


def solve(frames: Tensor, firsts: Tensor, params: TVL1Params, *, tiles: Tiles = Tiles()) -> Solved:
    """Compute the flow of pairs of frames.

    frames: float32 T x H x W on the device; firsts: int32, the position of the first frame of each pair; its second
    frame follows it in `frames`. The flow of a pair depends only on its two frames, not on `tiles`."""
    images_of_scales = pyramid_of(frames, params)
    flow = torch.zeros(len(firsts), 2, *images_of_scales[-1].shape[-2:], device=frames.device)
    iterations = []
    for images in reversed(images_of_scales):
        height, width = images.shape[-2:]
        flow = finer_flow(flow, height, width, params=params)
        flow, done = _solve_scale(images, flow, firsts, params=params, tiles=tiles)
        iterations.append(done)
    return Solved(flow, torch.stack(iterations))


def _solve_scale(
    images: Tensor, flow: Tensor, firsts: Tensor, *, params: TVL1Params, tiles: Tiles
) -> tuple[Tensor, Tensor]:
    """Improve the flow (N x 2 x H x W) between images (T x 1 x H x W) by warps. Returns it and its iterations."""
    pairs, _, height, width = flow.shape
    device = flow.device
    images = images.contiguous()
    seconds = differentiate(images)
    # Two buffers each: the tiles of a step read one while the others write the other.
    u = torch.empty(2, *flow.shape, device=device)
    u[0] = flow
    p = torch.zeros(2, pairs, 4, height, width, device=device)
    data = torch.empty(pairs, 3, height, width, device=device)
    sums = torch.zeros(pairs, kernels.MAX_COUNT.value, dtype=torch.int64, device=device)
    limit = torch.full((1,), round(params.epsilon**2 * height * width * kernels.UNITS.value), device=device)

    reach = min(iterations_per_step(height, width, tiles.iterate), params.inner_iterations)
    plans = torch.zeros(pairs, kernels.FIELDS.value, dtype=torch.int32, device=device)
    plans[:, kernels.NEXT.value] = kernels.WARP.value
    plans[:, kernels.COUNT.value] = reach
    rows, columns = tile_counts(height, width, tiles.iterate, overlap=2 * reach)
    prepare_rows, prepare_columns = tile_counts(height, width, tiles.prepare, overlap=0)
    median = {"MEDIAN": params.median_filtering}

    def step() -> None:
        _launch(
            kernels.prepare, (prepare_rows * prepare_columns, pairs), 4,
            u, data, images, seconds, firsts, plans, pairs, height, width, prepare_columns,
            HEIGHT=tiles.prepare[0], WIDTH=tiles.prepare[1], **median,
        )  # fmt: skip
        _launch(
            kernels.iterate, (rows * columns, pairs), tiles.iterate_warps,
            u, p, data, sums, plans, pairs, height, width, columns, reach,
            params.lambda_ * params.theta, params.theta, params.tau / params.theta,
            HEIGHT=tiles.iterate[0], WIDTH=tiles.iterate[1], **median,
        )  # fmt: skip
        _launch(
            kernels.advance, (-(-pairs // PAIRS_PER_BLOCK),), 4,
            plans, sums, limit, pairs, reach, params.inner_iterations, params.outer_iterations, params.warps,
            PAIRS=PAIRS_PER_BLOCK, **median,
        )  # fmt: skip

    looks = [_Look(device), _Look(device)]  # taken in turn: the device computes while the host waits for the older one
    number = 0
    while True:
        for _ in range(-(-LOOK_ITERATIONS // reach)):
            step()
        looks[number % 2].take(plans)
        number += 1
        if number > 1 and looks[number % 2].all_done():
            break
    sides = plans[:, kernels.FLOW_SIDE.value].long()
    return u[sides, torch.arange(pairs, device=device)], plans[:, kernels.ITERATIONS.value].clone()


class _Look:
    """A copy of one flag from the device: whether all pairs were done when it was taken."""

    def __init__(self, device: torch.device):
        on_gpu = device.type == "cuda"
        self._flag = torch.empty(1, dtype=torch.bool, pin_memory=on_gpu)
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def take(self, plans: Tensor) -> None:
        """Begin to copy the flag."""
        done = (plans[:, kernels.NEXT.value] == kernels.DONE.value).all()
        self._flag.copy_(done[None], non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def all_done(self) -> bool:
        """Wait for the copy; return the flag."""
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._flag)


def iterations_per_step(height: int, width: int, tile: tuple[int, int]) -> int:
    """Return the number of iterations in a step for which frames of this size are estimated to take the least time.

    More iterations need fewer loads, but tiles that overlap more, and more iterations are repeated when a pair
    converges. Whether the tiles fit the frame well decides."""

    def cost(count: int) -> float:
        rows, columns = tile_counts(height, width, tile, overlap=2 * count)
        iterations = USUAL_ITERATIONS + count  # half a step too many, and half a step repeated
        steps = USUAL_ITERATIONS / count + 0.5 + (count - 1) / count
        return rows * columns * (iterations + LOADS * steps)

    return min((count for count in COUNTS if 2 * count < min(tile)), key=cost)


def tile_counts(height: int, width: int, tile: tuple[int, int], *, overlap: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of tiles that cover a frame; neighboring tiles share `overlap` pixels."""
    rows, columns = (
        max(1, -(-(side - overlap) // (of_tile - overlap))) for side, of_tile in zip((height, width), tile, strict=True)
    )
    return rows, columns


def _launch(kernel: Any, grid: tuple[int, ...], warps: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel. enable_fp_fusion: products and sums may be fused, which Triton will not do by default."""
    kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=True, **constants)
