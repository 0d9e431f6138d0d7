"""Rebuild the indexes of a dataset from its shards alone: `lgd inspect DATASET --rebuild-index`."""

import hashlib
import json
from collections.abc import Iterable

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress, say
from lgd.pipeline.dataset.dataset import DESCRIPTION, STREAMS, Dataset, StreamSpec
from lgd.pipeline.dataset.index_format import UNLABELLED, IndexRow, index_writer, split_of, table_of
from lgd.pipeline.dataset.index_places import SHARD_NAME
from lgd.pipeline.dataset.shard_file import scan_shard
from lgd.pipeline.storage.storage import Storage

SUFFIX = ".tar"


class DifferentVideos(UserError):
    """The shards do not have the videos that the dataset was finished with."""


def rebuild_indexes(dataset: Dataset) -> list[str]:
    """Write the index of every stream from its shards, reading every byte of them; return these streams.

    An index has the same bytes as the one that `lgd preprocess` wrote. A stream without an index whose shards do not
    have all videos is left out, with a line: it was never completed.
    Raises UserError, and leaves the existing index as it is, if a shard is damaged, or if the keys, labels or numbers
    of frames in the shards are not those that dataset.json has the fingerprint of."""
    root = dataset.storage.display()
    rebuilt = []
    for stream, spec in dataset.specs.items():
        shards = shard_names(dataset.storage, stream)
        try:
            if not shards:
                raise DifferentVideos(f"the {stream} stream of {root} has no shards")
            rebuild_index(dataset.storage, spec, shards, dataset=dataset)
        except DifferentVideos as error:
            if stream in dataset.streams:
                raise
            say(f"{error}; its index is not rebuilt")
        else:
            rebuilt.append(stream)
    if not rebuilt:
        raise UserError(f"no stream of {root} is complete: rerun its `lgd preprocess` command")
    return rebuilt


def rebuild_index(storage: Storage, spec: StreamSpec, shards: Iterable[str], *, dataset: Dataset | None = None) -> None:
    """Write the same index as `index_writer` from the tars alone, reading every byte of them.

    shards: their names, in order. dataset: its classes and fingerprint are compared with the videos of the shards.
    Raises UserError if a tar is cut off or its members are not the two files of each video, and DifferentVideos."""
    names = list(shards)
    digest = hashlib.sha256(json.dumps(dataset.classes if dataset else ()).encode())
    videos = 0
    with index_writer(storage, spec) as add, Progress(f"rebuild {spec.stream}", len(names), "shards") as progress:
        for count, shard in enumerate(names, 1):
            rows = scan_shard(storage, spec.stream, shard)
            for row in rows:
                digest.update(_identity(row, spec.stream))
            videos += len(rows)
            add(table_of(rows))
            progress.update(count)
        if dataset and digest.hexdigest() != dataset.fingerprint:
            expected = dataset.summary.get("videos", 0)
            what = f"{videos} videos, not {expected}" if videos != expected else "other keys, labels or frames"
            raise DifferentVideos(
                f"the shards of {storage.display(spec.stream)} do not match {storage.display(DESCRIPTION)} ({what}): "
                "rerun its `lgd preprocess` command to recreate missing shards"
            )


def shard_names(storage: Storage, stream: str) -> list[str]:
    """Return the names of the shards of a stream that exist, in the order of the index: by split and number."""
    names = (name.removesuffix(SUFFIX) for name in storage.names(stream) if name.endswith(SUFFIX))
    return sorted(filter(SHARD_NAME.fullmatch, names), key=lambda name: (split_of(name), int(name.rpartition("-")[2])))


def _identity(row: IndexRow, stream: str) -> bytes:
    """Return what the fingerprint of a dataset contains of a video."""
    label = None if row.label == UNLABELLED else row.label
    frames = len(row.ends) + STREAMS[stream].lost_frames
    return json.dumps([row.key, label, row.split, frames]).encode()
