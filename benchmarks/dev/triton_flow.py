"""The Triton solver in Triton's interpreter, without a GPU, against the numba solver: Middlebury's and real pairs.

    TRITON_INTERPRET=1 python -m lgd.benchmarks.dev.triton_flow --data videos

Each pair is reduced to --size and solved by both. The interpreter takes seconds per pair, whatever its size. Some pairs
have several solutions of nearly the same energy: a change of one pixel by one level of 255 moves numba's flow by pixels
there, which is the column `one level`. Exits with 1 if the difference of another pair is above MAX_DIFFERENCE
or MAX_MEAN, or that of such a pair above TIMES_ONE_LEVEL times the mean of that column.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from lgd.benchmarks.flow import read_clips, resize
from lgd.benchmarks.middlebury import PAIR_FILES, mean_length, middlebury_folders
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.tvl1 import compute_flow
from lgd.preprocessing.video.files import VideoFiles

MAX_DIFFERENCE, MAX_MEAN = 0.1, 0.001  # pixels, of the longest difference vector of a pair and of the mean one
TIMES_ONE_LEVEL = 3.0
CHANGED = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75))  # pixels that are changed, one at a time: fractions of the frame


@dataclass(frozen=True)
class Options:
    """The pairs."""

    data: Path
    """Folder with videos and Middlebury pairs at any depth."""
    pairs: int = 20
    """Real pairs, from different videos, evenly chosen."""
    size: Annotated[tuple[int, int], tyro.conf.arg(metavar="WIDTH HEIGHT")] = (80, 60)
    """Size of the frames, pixels."""


def main() -> None:
    """Run the script."""
    options = tyro.cli(Options, description=__doc__)
    if os.environ.get("TRITON_INTERPRET") != "1":
        sys.exit("set TRITON_INTERPRET=1")
    from lgd.preprocessing.flow import triton_solver

    torch.set_num_threads(1)
    files = VideoFiles(Storage(options.data))
    pairs = {}
    for name, folder in middlebury_folders(options.data, files.other_files).items():
        pictures = [cv2.imread(str(folder / file), cv2.IMREAD_GRAYSCALE) for file in PAIR_FILES[:2]]
        pairs[f"Middlebury {name}"] = np.stack([picture for picture in pictures if picture is not None])
    paths = [files.paths[i] for i in evenly_spaced(len(files.paths), 2 * options.pairs)]  # some cannot be used
    real, _ = read_clips(options.data, paths, 2)
    pairs.update(list(real.items())[: options.pairs])

    columns = ("pair", "motion px", "mean difference px", "max px", "one level: mean px", "max px", "iterations", "s")
    table = Table(*columns, title=f"Triton (interpreted) and numba, {options.size[0]} x {options.size[1]}")
    one_tile = (128, 256)  # large enough for a frame: the interpreter's time depends on the number of tiles
    not_met: list[str] = []
    worst_mean = worst = 0.0
    for name, frames in pairs.items():
        start = time.perf_counter()
        frames = resize(frames, options.size)
        solved = triton_solver.solve(
            torch.from_numpy(frames).float(),
            torch.zeros(1, dtype=torch.int32),
            TVL1Params(),
            tiles=triton_solver.Tiles(one_tile, one_tile),
        )
        reference = compute_flow(frames)[0]
        mean, longest = _lengths(solved.flow[0].movedim(0, -1).numpy() - reference)
        level_mean, level_longest = _of_one_level(frames, reference)
        if mean > MAX_MEAN or longest > MAX_DIFFERENCE:
            if mean > TIMES_ONE_LEVEL * level_mean:
                not_met.append(name)
        else:
            worst_mean, worst = max(worst_mean, mean), max(worst, longest)
        iterations = " ".join(str(count) for count in solved.iterations[:, 0].tolist())
        seconds = time.perf_counter() - start
        moved = f"{level_mean:.6f}", f"{level_longest:.5f}"
        length = f"{mean_length(reference):.2f}"
        row = (name, length, f"{mean:.6f}", f"{longest:.5f}", *moved, iterations, f"{seconds:.0f}")
        print(*row, sep="  ", flush=True)  # the table may take minutes
        table.add_row(*row)
    Console(width=180).print(table)
    print(
        f"{len(pairs)} pairs: mean difference at most {worst_mean:.6f} px, longest {worst:.5f} px, but in pairs with "
        "several solutions"
    )
    if not_met:
        sys.exit(f"claims not met: {', '.join(not_met)}")


def _lengths(difference: np.ndarray) -> tuple[float, float]:
    """Return the mean and the maximum length of vectors H x W x 2."""
    return mean_length(difference), float(np.hypot(*np.moveaxis(difference, -1, 0)).max())


def _of_one_level(frames: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return how far the flow moves if one pixel of the second frame changes by one level: mean and maximum, pixels."""
    changes = []
    for y, x in CHANGED:
        changed = frames.copy()
        pixel = 1, int(y * frames.shape[1]), int(x * frames.shape[2])
        changed[pixel] += 1 if changed[pixel] < 255 else -1
        changes.append(_lengths(compute_flow(changed)[0] - reference))
    means, longest = zip(*changes, strict=True)
    return max(means), max(longest)


if __name__ == "__main__":
    main()
