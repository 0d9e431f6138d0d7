"""Every video of the manifest accounted for: videos.parquet, rejected.parquet, the summary and the indexes."""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lgd.pipeline.dataset.dataset import STREAMS, Dataset, index_name
from lgd.pipeline.dataset.index import index_writer, read_part
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.plan import ShardPlan, survey

ROWS_AT_ONCE = 1 << 14  # of a table that is being written
SHARDS_AHEAD = 32  # whose parts are being read: latency of an object store, not computing

ABOUT = [
    ("key", pa.string()),
    ("path", pa.string()),
    ("label", pa.int32()),
    ("class", pa.string()),
    ("split", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
]
REJECTED = pa.schema([*ABOUT, ("reason", pa.string()), ("detail", pa.string())])


def finalize_dataset(dataset: Dataset, manifest: Manifest, plans: Sequence[ShardPlan], *, pool: Executor) -> None:
    """Writes the tables, the summary and, last, the index of each stream whose shards are all complete.

    Asserts that videos + rejected = manifest. Holds a few shards' rows at once, whatever the size of the dataset."""
    storage = dataset.storage
    there = survey(storage, dataset.specs, plans, pool=pool)
    finished = [stream for stream in dataset.specs if all(stream in streams for streams in there)]
    for stream in set(dataset.specs) - set(finished):
        if storage.exists(index_name(stream)):
            storage.delete(index_name(stream))
    if not finished:
        return
    summary, digest = _Summary(finished), hashlib.sha256(json.dumps(dataset.classes).encode())
    with ExitStack() as indexes:
        add_to_index = {
            stream: indexes.enter_context(index_writer(storage, dataset.specs[stream])) for stream in finished
        }
        with (
            _table(storage, "videos.parquet", _videos_schema(finished)) as add_videos,
            _table(storage, "rejected.parquet", REJECTED) as add_rejected,
        ):
            for plan, parts in _parts(storage, finished, plans, pool=pool):
                rows, rejected = _rows(plan, parts)
                add_videos(rows)
                add_rejected(rejected)
                summary.add(rows, rejected)
                for row in rows:
                    digest.update(json.dumps([row[name] for name in ("key", "label", "split", "frames")]).encode())
                for stream, (part, _) in parts.items():
                    add_to_index[stream](part)
        if summary.videos + summary.rejected != len(manifest.videos):
            raise RuntimeError(
                f"{summary.videos} videos + {summary.rejected} rejected are not the {len(manifest.videos)} of the "
                "manifest"
            )
        replace(dataset, fingerprint=digest.hexdigest(), summary=summary.document()).save()


def _parts(
    storage: Storage, streams: Sequence[str], plans: Sequence[ShardPlan], *, pool: Executor
) -> Iterator[tuple[ShardPlan, dict[str, tuple[pa.Table, dict[str, Any]]]]]:
    """Each shard with what its streams recorded, in order; the next ones are being read meanwhile."""

    def read(plan: ShardPlan) -> dict[str, tuple[pa.Table, dict[str, Any]]]:
        return {stream: read_part(storage, stream, plan.name) for stream in streams}

    ahead = iter(plans)
    reading = deque(pool.submit(read, plan) for plan in islice(ahead, SHARDS_AHEAD))
    for plan in plans:
        yield plan, reading.popleft().result()
        reading.extend(pool.submit(read, one) for one in islice(ahead, 1))


def _rows(
    plan: ShardPlan, parts: Mapping[str, tuple[pa.Table, dict[str, Any]]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of videos.parquet and of rejected.parquet, in the order of the plan."""
    first = next(iter(parts.values()))[1]
    rejections = {row["key"]: row for row in first["rejected"]}
    rejected = [_about(video) | rejections[video.key] for video in plan.videos if video.key in rejections]
    rows = [_about(video) | {"shard": plan.name} for video in plan.videos if video.key not in rejections]
    for stream, (part, record) in parts.items():
        columns = part.select(["key", "width", "height"]).to_pylist()
        for row, column, ends, more in zip(rows, columns, part.column("ends"), record["videos"], strict=True):
            if row["key"] != column["key"]:
                raise RuntimeError(f"{stream}/{plan.name} holds {column['key']} in the place of {row['key']}")
            row["frames"] = len(ends) + STREAMS[stream].lost_frames
            row["width"] = column["width"] // max(STREAMS[stream].planes, 1)
            row["height"] = column["height"]
            row |= {f"{stream}_{name}": value for name, value in more.items()}
    return rows, rejected


def _about(video: Video) -> dict[str, Any]:
    names = {"class": "class_name"}
    return {name: getattr(video, names.get(name, name)) for name, _ in ABOUT}


def _videos_schema(streams: Sequence[str]) -> pa.Schema:
    columns = [
        *ABOUT,
        ("frames", pa.int32()),  # of the rgb stream; flow has one less
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("shard", pa.string()),
    ]
    columns += [(f"{stream}_bytes", pa.int64()) for stream in streams]
    if "flow" in streams:
        columns.append(("flow_saturated", pa.float64()))  # fraction of vectors beyond the bound
    return pa.schema(columns)


@contextmanager
def _table(storage: Storage, name: str, schema: pa.Schema) -> Iterator[Any]:
    """A Parquet file that grows by rows."""
    waiting: list[dict[str, Any]] = []
    with storage.writer(name) as file, pq.ParquetWriter(file, schema) as writer:

        def add(rows: list[dict[str, Any]]) -> None:
            waiting.extend(rows)
            if len(waiting) >= ROWS_AT_ONCE:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema))
            waiting.clear()

        yield add
        flush()


class _Summary:
    """Counts of what the dataset holds."""

    def __init__(self, streams: Sequence[str]):
        self.videos = self.rejected = self.frames = 0
        self._splits: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._bytes = dict.fromkeys(streams, 0)

    def add(self, rows: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> None:
        self.videos += len(rows)
        self.rejected += len(rejected)
        self.frames += sum(row["frames"] for row in rows)
        self._splits.update(row["split"] for row in rows)
        self._reasons.update(row["reason"] for row in rejected)
        for stream in self._bytes:
            self._bytes[stream] += sum(row[f"{stream}_bytes"] for row in rows)

    def document(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "rejected": self.rejected,
            "reasons": dict(sorted(self._reasons.items())),
            "frames": self.frames,
            "splits": dict(sorted(self._splits.items())),
            "bytes": self._bytes,
        }
