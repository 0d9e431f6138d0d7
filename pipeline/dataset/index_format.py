"""The format of an index and its parts: an Arrow IPC file with a row per video and a JSON record in its metadata."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa

from lgd.pipeline.dataset.dataset import StreamSpec, index_name
from lgd.pipeline.storage.storage import Storage

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("label", pa.int32()),
        ("width", pa.int32()),  # of a stored frame, pixels (both planes of flow together)
        ("height", pa.int32()),
        ("offset", pa.int64()),  # byte in the tar at which the first frame starts
        ("ends", pa.list_(pa.uint32())),  # byte after each frame, counted from `offset`
        ("crc32", pa.list_(pa.uint32())),  # of each frame's bytes
    ]
)
METADATA = b"lgd"
UNLABELLED = -1  # in the column label, of a video without one; there are no nulls, since the file is mapped


class IndexRow(NamedTuple):
    """One video of one stream, as its shard task records it. The fields are those of SCHEMA."""

    key: str
    split: str
    shard: str
    label: int
    width: int
    height: int
    offset: int
    ends: Sequence[int]
    crc32: Sequence[int]


def split_of(shard: str) -> str:
    """Return the split in the name of a shard: `train` for `train-000012`."""
    return shard.rpartition("-")[0]


def stored_label(label: int | None) -> int:
    """Return the label of a video as the index stores it: UNLABELLED for None."""
    return UNLABELLED if label is None else label


@contextmanager
def index_writer(storage: Storage, spec: StreamSpec) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that adds an index part to the index of a stream; the parts of all shards are added in order.

    The index appears when the block ends without an error: from then on the stream is complete."""
    record = {"stream": spec.stream, "recipe": spec.hash}
    with storage.writer(index_name(spec.stream)) as file, record_writer(file, record) as write:
        yield write


def table_of(rows: Sequence[IndexRow]) -> pa.Table:
    """Return rows as a table with the columns of SCHEMA."""
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
    return pa.table([pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


@contextmanager
def record_writer(file: Any, record: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """Open an Arrow file with a record in its metadata; each table that is written becomes one batch."""
    schema = SCHEMA.with_metadata({METADATA: json.dumps(record, sort_keys=True)})
    with pa.ipc.new_file(file, schema) as writer:

        def write(table: pa.Table) -> None:
            if table.num_rows:
                writer.write_table(table.combine_chunks().cast(schema))

        yield write
