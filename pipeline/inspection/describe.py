"""What a dataset holds, in numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset.dataset import MANIFEST, Dataset, read_table
from lgd.pipeline.dataset.index import Index, scan_shard


def describe(dataset: Dataset) -> dict[str, Any]:
    """Splits, classes, videos, frames, bytes, rejected by reason, and each stream's recipe.

    Raises UserError for a dataset none of whose streams is finished."""
    if not dataset.streams:
        dataset.spec(next(iter(dataset.specs), "rgb"))  # says what is missing
    videos, rejected = dataset.videos(), dataset.rejected()
    reasons = pc.value_counts(rejected.column("reason")).to_pylist()
    streams = {}
    for name in dataset.streams:
        index = Index(dataset, name)
        streams[name] = {
            "videos": len(index),
            "frames": int(index.lengths.sum(dtype="int64")),
            "bytes": pc.sum(videos.column(f"{name}_bytes")).as_py() or 0,
            "hash": index.spec.hash,
            "recipe": dict(index.spec.settings),
        }
    if "flow" in streams:
        streams["flow"]["saturated"] = pc.mean(videos.column("flow_saturated")).as_py()
    return {
        "dataset": dataset.storage.display(),
        "classes": list(dataset.classes),
        "videos": videos.num_rows,
        "splits": {row["values"]: row["counts"] for row in pc.value_counts(videos.column("split")).to_pylist()},
        "rejected": {row["values"]: row["counts"] for row in reasons},
        "streams": streams,
    }


def verify(dataset: Dataset, streams: Sequence[str]) -> list[str]:
    """Reads every byte of the streams back; a line for each thing that is not as it was written."""
    manifest = read_table(dataset.storage, MANIFEST, ["key"]).column("key").to_pylist()
    videos = dataset.videos(["key"]).column("key").to_pylist()
    rejected = dataset.rejected().column("key").to_pylist()
    problems = []
    if sorted(videos + rejected) != sorted(manifest):
        problems.append(f"{len(videos)} videos + {len(rejected)} rejected are not the {len(manifest)} of the manifest")
    for name in streams:
        index = Index(dataset, name)
        there = set(index.keys(range(len(index))))
        problems += [f"{name}: {key} is in videos.parquet, but not in the index" for key in sorted(set(videos) - there)]
        problems += [f"{name}: {key} is in the index, but not in videos.parquet" for key in sorted(there - set(videos))]
        shards = index.shards()
        with Progress(f"verify {name}", len(shards), "shards") as progress:
            for count, (shard, rows) in enumerate(shards.items(), 1):
                problems += [f"{name}/{shard}.tar: {problem}" for problem in _verify_shard(index, shard, rows)]
                progress.update(count)
    return problems


def _verify_shard(index: Index, shard: str, rows: Mapping[str, int]) -> list[str]:
    """rows: of the index, by key."""
    try:
        found = {row.key: row for row in scan_shard(index.storage, index.spec.stream, shard)}
    except StoreError:
        raise  # it says nothing about the shard
    except (UserError, OSError) as error:
        return [str(error)]
    problems = [f"{key} is in the shard, but not in the index" for key in found.keys() - rows.keys()]
    for key, row in rows.items():
        if key not in found:
            problems.append(f"{key} is in the index, but not in the shard")
            continue
        expected = index.frames(row, np.arange(index.lengths[row]))
        if len(found[key].crc32) != len(expected.crc32):
            problems.append(f"{key} has {len(found[key].crc32)} frames, not {len(expected.crc32)}")
            continue
        wrong = np.flatnonzero(np.array(found[key].crc32, np.uint32) != expected.crc32)
        if len(wrong):
            problems.append(f"{key} is damaged in frame {wrong[0]}, from byte {expected.start[wrong[0]]} on")
        elif found[key].offset + np.array(found[key].ends)[-1] != expected.end[-1]:
            problems.append(f"{key} does not lie where the index says")
    return problems
