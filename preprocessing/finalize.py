"""The last step of preprocessing: videos.parquet, rejected.parquet, the summary and the indexes of the streams."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lgd.pipeline.dataset.dataset import STREAMS, Dataset, index_name
from lgd.pipeline.dataset.fingerprint import Fingerprint
from lgd.pipeline.dataset.index_format import index_writer
from lgd.pipeline.dataset.index_parts import read_part
from lgd.pipeline.dataset.tables import REJECTED, REJECTED_SCHEMA, VIDEO_COLUMNS, VIDEOS, videos_schema
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.plan import ShardPlan, find_complete_shards

ROWS_AT_ONCE = 1 << 14  # rows in memory while a table is written
SHARDS_AHEAD = 32  # index parts read ahead, because of the latency of object stores

Row = dict[str, Any]  # column -> value


def finalize_dataset(dataset: Dataset, manifest: Manifest, plans: Sequence[ShardPlan], *, pool: Executor) -> None:
    """Write the tables, the summary and, last, the index of each stream whose shards are all complete.

    Raises RuntimeError unless videos + rejected = manifest. Keeps the rows of a few shards in memory at a time,
    whatever the size of the dataset."""
    storage = dataset.storage
    complete_shards = find_complete_shards(storage, dataset.specs, plans, pool=pool)
    complete = [stream for stream in dataset.specs if all(stream in streams for streams in complete_shards)]
    for stream in set(dataset.specs) - set(complete):
        storage.delete(index_name(stream), missing_ok=True)
    if not complete:
        return
    summary, fingerprint = _Summary(complete), Fingerprint(dataset.classes)
    with ExitStack() as indexes:
        add_to_index = {
            stream: indexes.enter_context(index_writer(storage, dataset.specs[stream])) for stream in complete
        }
        with (
            _table_writer(storage, VIDEOS, videos_schema(complete)) as add_videos,
            _table_writer(storage, REJECTED, REJECTED_SCHEMA) as add_rejected,
        ):
            for plan, parts in _read_parts(storage, complete, plans, pool=pool):
                rows, rejected = _table_rows(plan, parts)
                add_videos(rows)
                add_rejected(rejected)
                summary.add(rows, rejected)
                for row in rows:
                    fingerprint.add(row["key"], row["label"], row["split"], frames=row["frames"])
                for stream, (part, _) in parts.items():
                    add_to_index[stream](part)
        if summary.videos + summary.rejected != len(manifest.videos):
            raise RuntimeError(
                f"{summary.videos} videos + {summary.rejected} rejected videos are not the {len(manifest.videos)} "
                "videos of the manifest"
            )
        replace(dataset, fingerprint=fingerprint.hex(), summary=summary.document()).save()


def _read_parts(
    storage: Storage, streams: Sequence[str], plans: Sequence[ShardPlan], *, pool: Executor
) -> Iterator[tuple[ShardPlan, dict[str, tuple[pa.Table, dict[str, Any]]]]]:
    """Yield each shard with its index parts by stream, in order; the next ones are read in the background."""

    def read(plan: ShardPlan) -> dict[str, tuple[pa.Table, dict[str, Any]]]:
        return {stream: read_part(storage, stream, plan.name) for stream in streams}

    ahead = iter(plans)
    reading = deque(pool.submit(read, plan) for plan in islice(ahead, SHARDS_AHEAD))
    for plan in plans:
        yield plan, reading.popleft().result()
        reading.extend(pool.submit(read, following) for following in islice(ahead, 1))


def _table_rows(plan: ShardPlan, parts: Mapping[str, tuple[pa.Table, dict[str, Any]]]) -> tuple[list[Row], list[Row]]:
    """Return the rows of videos.parquet and of rejected.parquet for one shard, in the order of the plan."""
    first = next(iter(parts.values()))[1]
    rejections = {row["key"]: row for row in first["rejected"]}
    rejected = [_video_columns(video) | rejections[video.key] for video in plan.videos if video.key in rejections]
    rows = [_video_columns(video) | {"shard": plan.name} for video in plan.videos if video.key not in rejections]
    for stream, (part, record) in parts.items():
        columns = part.select(["key", "width", "height"]).to_pylist()
        for row, indexed, ends, extra in zip(rows, columns, part.column("ends"), record["videos"], strict=True):
            if row["key"] != indexed["key"]:
                raise RuntimeError(f"{stream}/{plan.name} contains {indexed['key']} instead of {row['key']}")
            row["frames"] = len(ends) + STREAMS[stream].lost_frames
            row["width"] = indexed["width"] // max(STREAMS[stream].planes, 1)
            row["height"] = indexed["height"]
            row |= {f"{stream}_{name}": value for name, value in extra.items()}
    return rows, rejected


def _video_columns(video: Video) -> Row:
    names = {"class": "class_name"}
    return {name: getattr(video, names.get(name, name)) for name, _ in VIDEO_COLUMNS}


@contextmanager
def _table_writer(storage: Storage, name: str, schema: pa.Schema) -> Iterator[Callable[[list[Row]], None]]:
    """Create a Parquet file and yield a function that appends rows to it."""
    buffered: list[Row] = []
    with storage.writer(name) as file, pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:

        def add(rows: list[Row]) -> None:
            buffered.extend(rows)
            if len(buffered) >= ROWS_AT_ONCE:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(buffered, schema))
            buffered.clear()

        yield add
        flush()


class _Summary:
    """Counters of the videos, frames and bytes of the dataset."""

    def __init__(self, streams: Sequence[str]):
        self.videos = self.rejected = self.frames = 0
        self._splits: Counter[str] = Counter()
        self._unlabelled: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._bytes = dict.fromkeys(streams, 0)

    def add(self, rows: list[Row], rejected: list[Row]) -> None:
        self.videos += len(rows)
        self.rejected += len(rejected)
        self.frames += sum(row["frames"] for row in rows)
        self._splits.update(row["split"] for row in rows)
        self._unlabelled.update(row["split"] for row in rows if row["label"] is None)
        self._reasons.update(row["reason"] for row in rejected)
        for stream in self._bytes:
            self._bytes[stream] += sum(row[f"{stream}_bytes"] for row in rows)

    def document(self) -> dict[str, Any]:
        """Return the summary as `dataset.json` stores it; `unlabelled` only if a video has no label."""
        unlabelled = {"unlabelled": dict(sorted(self._unlabelled.items()))} if self._unlabelled else {}
        return {
            "videos": self.videos,
            "rejected": self.rejected,
            "reasons": dict(sorted(self._reasons.items())),
            "frames": self.frames,
            "splits": dict(sorted(self._splits.items())),
            **unlabelled,
            "bytes": self._bytes,
        }
