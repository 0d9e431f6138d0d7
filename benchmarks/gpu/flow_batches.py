"""The Triton TV-L1 solver on a GPU: the iterations alone, and complete pairs by the size of the batch.

    python -m lgd.benchmarks.gpu.flow_batches

The bound is the memory's bandwidth. A step of c iterations reads 9 numbers a pixel (flow 2, dual variables 4, data
term 3) and writes 6: 60 bytes, if a tile's overlap with its neighbors comes from the L2 cache. A warp of n iterations
takes n / c + 1/2 steps, since the last one is half empty on average, and repeats the last one in (c - 1) of c cases. It
begins with the median filter and the data term: 44 bytes read and written. See `bytes_per_iteration`.
"""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lgd.benchmarks.gpu.flow import ITERATIONS, moving_frames
from lgd.benchmarks.gpu.rows import Measured, Row

SIZES = ((160, 120), (340, 256))
BATCHES = {(160, 120): (16, 64, 256, 436), (340, 256): (4, 16, 64, 96)}
LEAST_S = 1.0  # of each measurement
STEP_BYTES = 4 * (
    2 + 4 + 3 + 2 + 4
)  # per pixel: flow, dual variables and data term read, flow and dual variables written
PREPARE_BYTES = 4 * (2 + 3 + 1 + 3 + 2)  # flow, second frame with gradients, first frame; data term, filtered flow


@dataclass(frozen=True)
class Traffic:
    """Bytes that the solver moves per pixel and iteration.

    count: iterations in a step. memory: through the GPU's memory, the bound. requested: of the kernels' loads and
    stores, with the overlaps of tiles, most of which the L2 cache serves. overlap: pixels computed per pixel."""

    count: int
    memory: float
    requested: float
    overlap: float


def bytes_per_iteration(width: int, height: int) -> Traffic:
    """Return the traffic of the usual warp at the finest scale."""
    from lgd.preprocessing.flow.triton_solver import USUAL_ITERATIONS, Tiles, iterations_per_step, tile_counts

    tile = Tiles().iterate
    count = iterations_per_step(height, width, tile)
    steps = USUAL_ITERATIONS / count + 0.5 + (count - 1) / count
    numbers = tile_counts(height, width, tile, overlap=2 * count)
    # Pixels of the frame that are loaded by all tiles; a pixel outside is not.
    loaded = 1.0
    for side, of_tile, tiles in zip((height, width), tile, numbers, strict=True):
        loaded *= sum(min(of_tile, side - k * (of_tile - 2 * count)) for k in range(tiles)) / side
    loads = STEP_BYTES - 4 * 6
    return Traffic(
        count,
        (steps * STEP_BYTES + PREPARE_BYTES) / USUAL_ITERATIONS,
        (steps * (loads * loaded + 4 * 6) + PREPARE_BYTES) / USUAL_ITERATIONS,
        numbers[0] * numbers[1] * tile[0] * tile[1] / (width * height),
    )


def pairs_bound(bytes_per_s: float, width: int, height: int) -> float:
    """Return pairs per second at this bandwidth, for the iterations that real videos need."""
    traffic = bytes_per_iteration(width, height)
    return bytes_per_s / (traffic.memory * ITERATIONS[width, height] * width * height)


def speeds(measured: Measured) -> list[Row]:
    """Measure complete pairs on the GPU, without transfers, by the size of the batch."""
    rows = []
    for width, height in SIZES:
        bound = pairs_bound(measured.bytes_per_s, width, height) if measured.bytes_per_s else None
        for pairs in BATCHES[width, height]:
            speed, iterations = solved_per_second(width, height, pairs)
            note = f"{iterations:.0f} iterations a pair, in units of complete frames"
            rows.append(Row(f"TV-L1, {width} x {height}, {pairs} pairs", speed, "pairs/s", bound, note=note))
    return rows


def solved_per_second(width: int, height: int, pairs: int) -> tuple[float, float]:
    """Return the pairs per second of a batch on the GPU, and the iterations of a pair over complete frames."""
    import torch

    from lgd.preprocessing.flow.params import TVL1Params
    from lgd.preprocessing.flow.torch_pyramid import pyramid_of
    from lgd.preprocessing.flow.triton_solver import solve

    params = TVL1Params()
    frames = torch.from_numpy(moving_frames(pairs + 1, height, width)).cuda().float()
    firsts = torch.arange(pairs, dtype=torch.int32, device="cuda")
    iterations = solve(frames, firsts, params).iterations.double().mean(dim=1).cpu()  # compiles
    areas = [images[0].numel() / (width * height) for images in reversed(pyramid_of(frames[:1], params))]
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < LEAST_S:
        solve(frames, firsts, params)
        torch.cuda.synchronize()
        runs += 1
    return runs * pairs / (time.perf_counter() - start), float(iterations @ torch.tensor(areas, dtype=torch.float64))


def iterations_per_second(width: int, height: int, tiles: Any) -> float:
    """Return the pixel-iterations per second of the kernel `iterate` alone, all pairs at work in complete steps."""
    import torch

    from lgd.preprocessing.flow import triton_kernels as kernels
    from lgd.preprocessing.flow.triton_solver import iterations_per_step, tile_counts

    pairs = BATCHES[width, height][-1]
    count = iterations_per_step(height, width, tiles.iterate)
    u = torch.randn(2, pairs, 2, height, width, device="cuda")
    p = torch.zeros(2, pairs, 4, height, width, device="cuda")
    data = torch.randn(pairs, 3, height, width, device="cuda")
    sums = torch.zeros(pairs, kernels.MAX_COUNT.value, dtype=torch.int64, device="cuda")
    plans = torch.zeros(pairs, kernels.FIELDS.value, dtype=torch.int32, device="cuda")
    plans[:, kernels.NEXT.value], plans[:, kernels.COUNT.value] = kernels.ITERATE.value, count
    rows, columns = tile_counts(height, width, tiles.iterate, overlap=2 * count)

    def step() -> None:
        kernels.iterate[rows * columns, pairs](
            u, p, data, sums, plans, pairs, height, width, columns, count, 0.045, 0.3, 0.25 / 0.3,
            MEDIAN=5, HEIGHT=tiles.iterate[0], WIDTH=tiles.iterate[1], num_warps=tiles.iterate_warps,
            enable_fp_fusion=True,
        )  # fmt: skip

    step()  # compiles
    torch.cuda.synchronize()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < LEAST_S:
        for _ in range(50):
            step()
        torch.cuda.synchronize()
        steps += 50
    return steps * count * pairs * width * height / (time.perf_counter() - start)


def main() -> None:
    """Print the tables."""
    import torch

    from lgd.preprocessing.flow.triton_solver import Tiles

    measured = Measured(torch.cuda.get_device_name(), [])
    table = Table("frames", "tile", "warps", "G pixel-iterations/s", "GB/s of 60 bytes a step", title=measured.card)
    for width, height in SIZES:
        count = bytes_per_iteration(width, height).count
        for tiles in (
            Tiles(),
            Tiles(iterate_warps=8),
            Tiles((32, 64), iterate_warps=8),
            Tiles((32, 64), iterate_warps=4),
        ):
            speed = iterations_per_second(width, height, tiles)
            tile = f"{tiles.iterate[0]} x {tiles.iterate[1]}"
            moved = speed / count * STEP_BYTES
            table.add_row(
                f"{width} x {height}", tile, str(tiles.iterate_warps), f"{speed / 1e9:.1f}", f"{moved / 1e9:.0f}"
            )
    console = Console()
    console.print(table)
    table = Table("", "pairs/s", "bound", "")
    for row in speeds(measured):
        table.add_row(row.name, f"{row.figure:,.0f}", f"{row.bound:,.0f}" if row.bound else "unknown", row.note)
    console.print(table)


if __name__ == "__main__":
    main()
