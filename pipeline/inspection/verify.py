"""Read every byte of a dataset and compare it with the index and the tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset.dataset import DESCRIPTION, STREAMS, Dataset
from lgd.pipeline.dataset.fingerprint import Fingerprint
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.dataset.shard_file import scan_shard
from lgd.pipeline.dataset.split_table import read_split_table
from lgd.pipeline.dataset.tables import MANIFEST, MANIFEST_SCHEMA, SPLITS, VIDEOS, read_table


def verify(dataset: Dataset, streams: Sequence[str]) -> list[str]:
    """Read every byte of the streams; return one line per problem."""
    manifest = read_table(dataset.storage, MANIFEST, ["key"], schema=MANIFEST_SCHEMA).column("key").to_pylist()
    videos = dataset.videos(["key"]).column("key").to_pylist()
    rejected = dataset.rejected().column("key").to_pylist()
    problems = []
    if sorted(videos + rejected) != sorted(manifest):
        problems.append(
            f"videos.parquet ({len(videos)} videos) and rejected.parquet ({len(rejected)}) together do not have the "
            f"same videos as {MANIFEST} ({len(manifest)})"
        )
    elif not _has_fingerprint(dataset, dataset.videos(["key", "label", "split", "frames"]).to_pylist()):
        problems.append(f"the labels, splits or frames of {VIDEOS} are not those of {DESCRIPTION}'s fingerprint")
    for name, keys in read_split_table(dataset.storage).members.items():
        if unlisted := sorted(set(keys.to_pylist()) - set(manifest)):
            problems.append(f"{SPLITS}: {unlisted[0]} is in the split {name}, but not in {MANIFEST}")
    for name in streams:
        index = Index(dataset, name)
        indexed = set(index.keys(range(len(index))))
        problems += [
            f"{name}: {key} is in videos.parquet, but not in the index" for key in sorted(set(videos) - indexed)
        ]
        problems += [
            f"{name}: {key} is in the index, but not in videos.parquet" for key in sorted(indexed - set(videos))
        ]
        if indexed == set(videos) and not _has_fingerprint(dataset, _described(index)):
            problems.append(f"{name}: the labels, splits or frames of the index are not those of {DESCRIPTION}")
        shards = index.shards()
        with Progress(f"verify {name}", len(shards), "shards") as progress:
            for count, (shard, rows) in enumerate(shards.items(), 1):
                problems += [f"{name}/{shard}.tar: {problem}" for problem in _verify_shard(index, shard, rows)]
                progress.update(count)
    return problems


def _has_fingerprint(dataset: Dataset, videos: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether videos, with key, label, split and number of frames, are those that the dataset was completed
    with."""
    fingerprint = Fingerprint(dataset.classes)
    for video in videos:
        fingerprint.add(video["key"], video["label"], video["split"], frames=video["frames"])
    return fingerprint.hex() == dataset.fingerprint


def _described(index: Index) -> Iterator[dict[str, Any]]:
    """Yield the key, label, split and number of decoded frames of each row of an index."""
    lost_frames = STREAMS[index.spec.stream].lost_frames
    for row in range(len(index)):
        label = int(index.labels[row])
        yield {
            "key": index.key(row),
            "label": None if label == UNLABELLED else label,
            "split": index.split(row),
            "frames": int(index.lengths[row]) + lost_frames,
        }


def _verify_shard(index: Index, shard: str, rows: Mapping[str, int]) -> list[str]:
    """Return the problems of one shard. rows: the row of the index of each key."""
    try:
        found = {row.key: row for row in scan_shard(index.storage, index.spec.stream, shard)}
    except StoreError:
        raise  # the store is unreachable: the shard may be valid
    except (UserError, OSError) as error:
        return [str(error)]
    problems = [f"{key} is in the shard, but not in the index" for key in found.keys() - rows.keys()]
    for key, row in rows.items():
        if key not in found:
            problems.append(f"{key} is in the index, but not in the shard")
            continue
        expected = index.frames(row, np.arange(index.lengths[row]))
        if len(found[key].crc32) != len(expected.crc32):
            problems.append(f"{key} has {len(found[key].crc32)} frames instead of {len(expected.crc32)}")
            continue
        damaged = np.flatnonzero(np.array(found[key].crc32, np.uint32) != expected.crc32)
        if len(damaged):
            problems.append(f"frame {damaged[0]} of {key} is damaged (from byte {expected.start[damaged[0]]})")
        elif found[key].offset + np.array(found[key].ends)[-1] != expected.end[-1]:
            problems.append(f"{key} is not at the position that the index names")
        indexed = int(index.labels[row]), int(index.widths[row]), int(index.heights[row])
        if (found[key].label, found[key].width, found[key].height) != indexed:
            problems.append(f"{key} does not have the label, width and height that the index names")
    return problems
