"""TV-L1 on a GPU: pairs of frames per second, from frames in the CPU's memory to the flow's code in the CPU's memory.

The bound is the memory's speed: bytes per pixel and iteration if five iterations run in one kernel, times the
iterations that a pair needs, as counted on real videos. The frames here are synthetic."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from lgd.benchmarks.gpu.rows import Measured, Row, goals_of

BYTES = 19  # per pixel and iteration
ITERATIONS = {(160, 120): 257, (340, 256): 274}  # per pair, in units of iterations over the complete frame
CLIP_PAIRS, WARM_UP_CLIPS = 64, 32  # pairs of a clip; clips before the measurement, which fill several batches
BOUND = 20.0  # pixels, of the code
LEAST_S = 4.0  # of the measurement


def bound(measured: Measured, width: int, height: int) -> float | None:
    """Return pairs per second at the speed of the GPU's memory."""
    if not measured.bytes_per_s:
        return None
    return measured.bytes_per_s / (BYTES * ITERATIONS[width, height] * width * height)


def speed(measured: Measured, *, width: int, height: int) -> list[Row]:
    """Measure the solver on a row of clips, as `lgd preprocess` uses it: it returns the flow's code."""
    from lgd.preprocessing.flow.tvl1 import solver_version, warm_up

    warm_up("torch", "cuda")
    clip = moving_frames(CLIP_PAIRS + 1, height, width)
    pairs_of([clip] * WARM_UP_CLIPS, "cuda")

    def clips() -> Iterator[Any]:
        while time.perf_counter() - start < LEAST_S:
            yield clip

    start = time.perf_counter()
    pairs_per_s = pairs_of(clips(), "cuda") / (time.perf_counter() - start)
    goals = goals_of(measured.card)
    goal = goals.pairs_per_s[width, height] if goals else None
    roof, version = bound(measured, width, height), solver_version("torch", "cuda")
    return [Row(f"TV-L1, {width} x {height}", pairs_per_s, "pairs/s", roof, goal, note=f"solver {version}")]


def pairs_of(clips: Iterable[Any], device: str) -> int:
    """Compute the flow of all clips and return the number of their pairs of frames."""
    from lgd.preprocessing.flow.tvl1 import compute_codes

    return sum(len(planes) for planes, _ in compute_codes(clips, backend="torch", device=device, bound=BOUND))


def moving_frames(count: int, height: int, width: int) -> Any:
    """Return a clip, uint8 T x H x W: a camera that pans over a texture, and a disk that moves across it."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    sides = (height + 64, width + 64)
    texture = np.zeros(sides, np.float32)
    for cell in (4, 12, 40):
        coarse = random.uniform(-1, 1, (sides[0] // cell + 2, sides[1] // cell + 2)).astype(np.float32)
        texture += cv2.resize(coarse, sides[::-1], interpolation=cv2.INTER_CUBIC)
    texture = 128 + 50 * texture
    frames = np.empty((count, height, width), np.uint8)
    for number in range(count):
        x, y = 32 + 24 * np.sin(number / 9), 32 + 24 * np.cos(number / 7)
        shift = np.array([[1, 0, x], [0, 1, y]])
        frame = cv2.warpAffine(texture, shift, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        disk = (int(width * (0.5 + 0.3 * np.sin(number / 5))), height // 2)
        cv2.circle(frame, disk, height // 6, 90.0, thickness=-1)
        frames[number] = np.clip(frame, 0, 255)
    return frames
