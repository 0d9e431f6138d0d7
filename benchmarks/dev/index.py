"""The cost of opening the index of a large dataset in a worker: time, and memory that processes cannot share.

    python -m lgd.benchmarks.dev.index             # 500,000 videos of 250 frames: the size of Kinetics-600, 1 GB

A synthetic index is written to a temporary folder (in TMPDIR) and opened by a new process, which also reads the rows of
the split train and the first clips of the training order. Private memory is `Anonymous` in /proc/self/smaps_rollup
after a garbage collection (the mapped file does not count), minus its value after all imports. Exits with 1 if the
claims MAX_OPEN_S and MAX_PRIVATE_MB are not met.
"""

import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff

from lgd.pipeline.dataset.dataset import Dataset, StreamSpec, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import SCHEMA, index_writer
from lgd.pipeline.loading.clip_order import Sampling, TrainOrder
from lgd.pipeline.storage.storage import Storage

MAX_OPEN_S, MAX_PRIVATE_MB = 2.0, 100.0  # including the rows of the split and the first clip
CLIPS = 2000  # number of clips that are looked up, at random positions
FRAME_BYTES = 4_000, 12_000  # range of the synthetic frame sizes
VAL_SHARDS = 20  # every 20th shard belongs to the split val


@dataclass(frozen=True)
class Options:
    """The synthetic index."""

    videos: int = 500_000
    """Videos in the index."""
    frames: int = 250
    """Frames per video."""
    videos_per_shard: int = 128
    """Videos per shard."""
    json: bool = False
    """Print the result as one JSON document."""
    folder: str = ""
    """Folder of a dataset: only open its index in this process and print JSON. The new process uses this option."""


def write_synthetic_dataset(folder: Path, options: Options) -> Dataset:
    """Write a dataset that consists only of its index.

    Frame sizes and checksums are the same in every shard; offsets and keys are not."""
    storage = Storage(folder)
    storage.make_folder("rgb")
    spec = StreamSpec("rgb", {"fps": 25.0})
    splits = {"train": 0, "val": 0}
    numbers = np.random.default_rng(0)
    with index_writer(storage, spec) as add:
        for shard, first in enumerate(range(0, options.videos, options.videos_per_shard)):
            videos = min(options.videos_per_shard, options.videos - first)
            split = "val" if shard % VAL_SHARDS == VAL_SHARDS - 1 else "train"
            splits[split] += videos
            if shard == 0:
                shape = videos, options.frames
                sizes = numbers.integers(*FRAME_BYTES, shape, dtype=np.uint32).cumsum(axis=1, dtype=np.uint32)
                checksums = numbers.integers(0, 1 << 32, shape, dtype=np.uint32)
            ends = sizes[:videos]
            offsets = np.concatenate([[0], ends[:, -1].cumsum(dtype=np.int64)[:-1]]) + 512 * (3 * np.arange(videos) + 1)
            lists = np.arange(videos + 1, dtype=np.int32) * options.frames
            columns = {
                "key": [f"video-{first + i:07d}" for i in range(videos)],
                "split": [split] * videos,
                "shard": [f"{split}-{shard:06d}"] * videos,
                "label": (first + np.arange(videos)) % 600,
                "width": np.full(videos, 455),
                "height": np.full(videos, 256),
                "offset": offsets,
                "ends": pa.ListArray.from_arrays(lists, ends.reshape(-1)),
                "crc32": pa.ListArray.from_arrays(lists, checksums[:videos].reshape(-1)),
            }
            arrays = [
                column if isinstance(column, pa.ListArray) else pa.array(column, SCHEMA.field(name).type)
                for name, column in columns.items()
            ]
            add(pa.table(arrays, SCHEMA))
    dataset = Dataset(
        storage,
        fingerprint="synthetic",
        classes=tuple(map(str, range(600))),
        videos_per_shard=options.videos_per_shard,
        specs={"rgb": spec},
        summary={
            "videos": options.videos,
            "rejected": 0,
            "reasons": {},
            "frames": options.videos * options.frames,
            "splits": splits,
            "bytes": {},
        },
        streams=("rgb",),
    )
    dataset.save()
    return dataset


def private_mb() -> float:
    """Return the memory of this process that is not backed by a file, MB."""
    gc.collect()
    match = re.search(r"^Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert match, "smaps_rollup has no field Anonymous"
    return int(match[1]) * 1024 / 1e6


def measure(folder: str) -> dict[str, Any]:
    """Open the index in this process. Return seconds, MB, and microseconds per clip of each kind of look-up."""
    dataset = open_dataset(folder)
    before, start = private_mb(), time.perf_counter()
    index = Index(dataset, "rgb")
    opened = time.perf_counter()
    rows = index.rows("train")
    order = TrainOrder(rows, index.lengths[rows], Sampling())
    order.clip(0)
    ordered = time.perf_counter()
    private = private_mb() - before
    clips = [order.clip(position) for position in range(CLIPS)]
    microseconds: dict[str, float] = {}
    look_ups: dict[str, Callable[[], object]] = {
        "bytes, first look-up": lambda: [index.frames(clip.row, clip.frames) for clip in clips],
        "bytes": lambda: [index.frames(clip.row, clip.frames) for clip in clips],
        "key": lambda: index.keys(clip.row for clip in clips),
        "label": lambda: index.labels[[clip.row for clip in clips]],
    }
    for name, look_up in look_ups.items():
        began = time.perf_counter()
        look_up()
        microseconds[name] = (time.perf_counter() - began) / CLIPS * 1e6
    return {
        "videos": len(index),
        "shards": len(index.shards()),
        "index_mb": Path(dataset.storage.path("rgb/index.arrow")).stat().st_size / 1e6,
        "open_s": opened - start,
        "order_s": ordered - opened,
        "private_mb": private,
        "after_clips_mb": private_mb() - before,
        "microseconds_a_clip": microseconds,
    }


def run(options: Options) -> dict[str, Any]:
    """Write the index and measure it in a new process."""
    with tempfile.TemporaryDirectory(prefix="lgd-index-") as folder:
        write_synthetic_dataset(Path(folder), options)
        command = [sys.executable, "-m", "lgd.benchmarks.dev.index", "--folder", folder]
        result: dict[str, Any] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
    result["holds"] = result["open_s"] + result["order_s"] <= MAX_OPEN_S and result["private_mb"] <= MAX_PRIVATE_MB
    return result


def main() -> None:
    """Run the script."""
    options = tyro.cli(Options, config=(FlagCreatePairsOff,), description=__doc__)
    if options.folder:
        print(json.dumps(measure(options.folder)))
        return
    result = run(options)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        table = Table("", "measured", "maximum")
        table.add_row(
            "index", f"{result['videos']:,} videos in {result['shards']:,} shards, {result['index_mb']:.0f} MB"
        )
        table.add_row("open", f"{result['open_s']:.3f} s")
        table.add_row(
            "rows of train, first clip of the order", f"{result['order_s']:.3f} s", f"{MAX_OPEN_S:.0f} s together"
        )
        table.add_row("private memory", f"{result['private_mb']:.1f} MB", f"{MAX_PRIVATE_MB:.0f} MB")
        table.add_row(f"private memory after {CLIPS} clips", f"{result['after_clips_mb']:.1f} MB")
        for name, microseconds in result["microseconds_a_clip"].items():
            table.add_row(f"{name}, per clip", f"{microseconds:.1f} us")
        Console(width=100).print(table)
    if not result["holds"]:
        sys.exit("claims not met: the time to open the index or its private memory is above the maximum")


if __name__ == "__main__":
    main()
