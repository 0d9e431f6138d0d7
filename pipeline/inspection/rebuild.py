"""Rebuild the indexes of a dataset from its shards alone: `lgd inspect DATASET --rebuild-index`."""

from collections.abc import Iterable, Sequence

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress, say
from lgd.pipeline.dataset.dataset import DESCRIPTION, STREAMS, Dataset, StreamSpec, shard_name
from lgd.pipeline.dataset.fingerprint import Fingerprint
from lgd.pipeline.dataset.index_format import UNLABELLED, IndexRow, index_writer, split_of, table_of
from lgd.pipeline.dataset.index_parts import read_part
from lgd.pipeline.dataset.index_places import SHARD_NAME
from lgd.pipeline.dataset.shard_file import ADVICE, scan_shard
from lgd.pipeline.storage.checked_json import DamagedFile
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
    fingerprint = Fingerprint(dataset.classes if dataset else ())
    videos = 0
    with index_writer(storage, spec) as add, Progress(f"rebuild {spec.stream}", len(names), "shards") as progress:
        for count, shard in enumerate(names, 1):
            rows = scan_shard(storage, spec.stream, shard)
            if dataset:
                _check_part(storage, spec.stream, shard, rows=rows)
            for row in rows:
                label = None if row.label == UNLABELLED else row.label
                fingerprint.add(row.key, label, row.split, frames=len(row.ends) + STREAMS[spec.stream].lost_frames)
            videos += len(rows)
            add(table_of(rows))
            progress.update(count)
        if dataset and fingerprint.hex() != dataset.fingerprint:
            expected = dataset.summary.get("videos", 0)
            what = f"{videos} videos, not {expected}" if videos != expected else "other keys, labels or frames"
            raise DifferentVideos(
                f"the shards of {storage.display(spec.stream)} do not match {storage.display(DESCRIPTION)} ({what}): "
                "rerun its `lgd preprocess` command to recreate missing shards"
            )


def _check_part(storage: Storage, stream: str, shard: str, *, rows: Sequence[IndexRow]) -> None:
    """Raise DamagedFile if the frames of a shard are not those of its index part: a new index would have the checksums
    of damaged frames. A part that is missing or damaged itself is ignored."""
    try:
        part, _ = read_part(storage, stream, shard)
    except (FileNotFoundError, DamagedFile):
        return
    source, expected = storage.display(shard_name(stream, shard)), part.to_pylist()
    for row, before in zip(rows, expected, strict=False):
        frames = np.array(row.crc32, np.uint32), np.array(before["crc32"], np.uint32)
        if len(frames[0]) == len(frames[1]) and (damaged := np.flatnonzero(frames[0] != frames[1])).size:
            raise DamagedFile(f"{source} is damaged (frame {damaged[0]} of {row.key}): {ADVICE}")
    if [row._asdict() for row in rows] != expected:
        raise DamagedFile(f"{source} is damaged (it does not have the videos of its index part): {ADVICE}")


def shard_names(storage: Storage, stream: str) -> list[str]:
    """Return the names of the shards of a stream that exist, in the order of the index: by split and number."""
    names = (name.removesuffix(SUFFIX) for name in storage.names(stream) if name.endswith(SUFFIX))
    return sorted(filter(SHARD_NAME.fullmatch, names), key=lambda name: (split_of(name), int(name.rpartition("-")[2])))
