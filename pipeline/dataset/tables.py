"""The tables of a dataset, which are Parquet files: their columns, and how they are read and written.

The names of the columns are those on disk, which do not change."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lgd.pipeline.storage.checked_arrow import damaged_if_invalid, read_parquet
from lgd.pipeline.storage.storage import Storage

MANIFEST = "manifest.parquet"
VIDEOS = "videos.parquet"
REJECTED = "rejected.parquet"
SPLITS = "splits.parquet"

VIDEO_COLUMNS = (
    ("key", pa.string()),
    ("path", pa.string()),
    ("label", pa.int32()),
    ("class", pa.string()),
    ("split", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
)
NULLABLE = ("label", "class", "class_name", "start_s", "end_s")
REJECTED_SCHEMA = pa.schema([*VIDEO_COLUMNS, ("reason", pa.string()), ("detail", pa.string())])
MANIFEST_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("missing", pa.bool_()),
    ]
)
SPLITS_SCHEMA = pa.schema([("key", pa.string()), ("split", pa.string())])
# Smallest and largest valid value; names of columns may end with these.
LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "label": (0, np.inf),
        "frames": (1, np.inf),
        "width": (1, np.inf),
        "height": (1, np.inf),
        "_bytes": (1, np.inf),
        "_saturated": (0, 1),
    }
)
ADVICE: Mapping[str, str] = MappingProxyType(
    {
        MANIFEST: "restore it from a backup, or preprocess the videos into a new folder",
        VIDEOS: "delete the index.arrow of each stream and rerun `lgd preprocess`, which writes the tables again",
        REJECTED: "delete the index.arrow of each stream and rerun `lgd preprocess`, which writes the tables again",
        SPLITS: "delete it and add the splits again with `lgd splits`",
    }
)


def videos_schema(streams: Sequence[str]) -> pa.Schema:
    """Return the columns of videos.parquet of a dataset with these streams."""
    columns = [
        *VIDEO_COLUMNS,
        ("frames", pa.int32()),  # of the rgb stream; flow has one fewer
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("shard", pa.string()),
    ]
    columns += [(f"{stream}_bytes", pa.int64()) for stream in streams]
    if "flow" in streams:
        columns.append(("flow_saturated", pa.float64()))  # fraction of vectors larger than the bound
    return pa.schema(columns)


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a Parquet file atomically."""
    with storage.writer(name) as file:
        pq.write_table(table, file, write_page_checksum=True)


def read_table(
    storage: Storage,
    name: str,
    columns: Sequence[str] | None = None,
    *,
    schema: pa.Schema | None = None,
    classes: int | None = None,
) -> pa.Table:
    """Read a table of a dataset.

    columns: default all. schema: columns that it must have, if they are among `columns`. classes: their number, to
    check the labels. Raises UserError if the table is missing, and DamagedFile if it is damaged."""
    with damaged_if_invalid(storage.display(name), ADVICE.get(name, "write it again")):
        with storage.open_whole(name) as file:
            table = read_parquet(file, columns, schema=schema, nullable=NULLABLE)
        if schema is not None:
            _check_values(table, classes, unique=name != SPLITS)
    return table


def _check_values(table: pa.Table, classes: int | None, *, unique: bool) -> None:
    """Raise ValueError for a value out of range and, if keys are unique in this table, for one that appears twice."""
    for name in table.column_names:
        limits = next((limits for end, limits in LIMITS.items() if name.endswith(end)), None)
        if limits is None or not table.num_rows:
            continue
        if not pa.types.is_integer(kind := table.schema.field(name).type) and not pa.types.is_floating(kind):
            raise ValueError(f"column {name} is {kind}, must be a number")
        found = pc.min_max(table.column(name)).as_py()
        for value in found.values():
            if value is not None and not limits[0] <= value <= limits[1]:
                raise ValueError(f"{name} {value}")
        if name == "label" and classes is not None and found["max"] is not None and found["max"] >= classes:
            raise ValueError(f"label {found['max']}, but there are {classes} classes")
    if unique and "key" in table.column_names and pc.count_distinct(table.column("key")).as_py() != table.num_rows:
        raise ValueError("a key appears twice")
