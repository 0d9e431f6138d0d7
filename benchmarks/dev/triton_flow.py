"""The Triton solver in Triton's interpreter, without a GPU, against the numba solver: Middlebury's and real pairs.

    TRITON_INTERPRET=1 python -m lgd.benchmarks.dev.triton_flow --data videos

Each pair is reduced to --size and solved by both. The interpreter takes seconds per pair, whatever its size. Exits with
1 if a difference is above MAX_DIFFERENCE or MAX_MEAN.
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

    columns = ("pair", "motion px", "mean difference px", "max px", "iterations", "s")
    table = Table(*columns, title=f"Triton (interpreted) and numba, {options.size[0]} x {options.size[1]}")
    one_tile = (128, 256)  # large enough for a frame: the interpreter's time depends on the number of tiles
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
        difference = solved.flow[0].movedim(0, -1).numpy() - reference
        mean, longest = mean_length(difference), float(np.hypot(*np.moveaxis(difference, -1, 0)).max())
        worst_mean, worst = max(worst_mean, mean), max(worst, longest)
        iterations = " ".join(str(count) for count in solved.iterations[:, 0].tolist())
        seconds = time.perf_counter() - start
        row = (name, f"{mean_length(reference):.2f}", f"{mean:.6f}", f"{longest:.5f}", iterations, f"{seconds:.0f}")
        print(*row, sep="  ", flush=True)  # the table may take minutes
        table.add_row(*row)
    Console(width=140).print(table)
    print(f"{len(pairs)} pairs: mean difference at most {worst_mean:.6f} px, longest {worst:.5f} px")
    if worst_mean > MAX_MEAN or worst > MAX_DIFFERENCE:
        sys.exit(f"claims not met: mean at most {MAX_MEAN} px and each vector at most {MAX_DIFFERENCE} px")


if __name__ == "__main__":
    main()
