"""Arrow and Parquet files that were written earlier and may be damaged or forged by now.

pyarrow checks the structure of a file when it opens it, but not the offsets of strings and lists: an offset beyond its
buffer ends the process when the value is read. The functions here check everything that a later access relies on; the
values of plain columns are checked by the caller."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.checked_json import DamagedFile

MAGIC = b"ARROW1"
START = 8  # bytes before the first message: the magic, padded
# A Parquet file is refused before it is read if it declares more than this per byte of the file: rows (a row has a
# different key, and so takes more than a byte), and bytes of columns (snappy, its compression, stays below 25).
MAX_ROWS_PER_BYTE, MAX_BYTES_PER_BYTE = 1, 100
SMALL_FILE = 1 << 20  # bytes of columns that are always read


@contextmanager
def damaged_if_invalid(source: str, advice: str) -> Iterator[None]:
    """Turn what pyarrow and the checks of a file's values raise into DamagedFile: one line that names the file.

    source: name of the file. advice: what to do, the end of the message."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{source} is missing: {advice}") from error
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
        struct.error,
    ) as error:
        text = " ".join(str(error).split()).partition(". Detail: ")[0]  # pyarrow's messages may have several lines
        raise DamagedFile(f"{source} is damaged ({text[:200]}): {advice}") from error


def read_schema(content: pa.Buffer, schema: pa.Schema) -> Mapping[bytes, bytes]:
    """Return the metadata of an Arrow IPC file. Raises ValueError or pyarrow's errors if the file is cut off or does
    not have this schema."""
    if content.size < 2 * START or content.slice(0, START).to_pybytes() != MAGIC.ljust(START, b"\0"):
        raise ValueError("it is not an Arrow file")
    found = pa.ipc.open_file(content).schema
    if not found.equals(schema):
        different = [
            field.name for field in schema if field.name not in found.names or found.field(field.name) != field
        ]
        raise ValueError(f"different columns: {', '.join(different) or ', '.join(found.names)}")
    return found.metadata or {}


def read_batches(content: pa.Buffer, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of an Arrow IPC file, each with at least one row, no nulls, valid offsets, and all of
    its buffers in `content`.

    schema: the expected columns; see `read_schema`. Raises ValueError or pyarrow's errors if the file is damaged."""
    metadata = read_schema(content, schema)
    expected = pa.ipc.open_file(content).num_record_batches
    # Not through the positions in the footer: one batch after the other, so that none is compressed or appears twice.
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(content.slice(START)))
    first = pa.ipc.read_schema(messages.read_next_message())
    if not first.equals(schema) or (first.metadata or {}) != metadata:
        raise ValueError("the schema at its start is not the one at its end")
    count = 0
    for message in messages:
        if message.type != "record batch" or _is_compressed(message.metadata):
            raise ValueError("it contains more than plain record batches")
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
        _check_buffers(batch, content)
        count += 1
        yield batch
    if count != expected:
        raise ValueError(f"{count} record batches instead of {expected}")


def _check_buffers(batch: pa.RecordBatch, content: pa.Buffer) -> None:
    start, end = content.address, content.address + content.size
    if batch.num_rows == 0:
        raise ValueError("a record batch without rows")
    for column in batch.columns:
        if column.null_count:
            raise ValueError("nulls")
        for buffer in column.buffers():
            # None: a validity, as there are no nulls.
            if buffer is not None and not (start <= buffer.address <= end - buffer.size):
                raise ValueError("a buffer outside of the file")


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Return whether the buffers of a record batch are compressed: if so, a small file can expand to any size.

    metadata: its message, a FlatBuffer that pyarrow has verified: Message.header is a RecordBatch, whose field 3 is
    `compression` (format/Message.fbs of Apache Arrow)."""
    content = metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """Return the position of a field of a table, 0 if the table does not have it."""
        vtable = table - struct.unpack_from("<i", content, table)[0]
        entry = 4 + 2 * number
        if entry >= struct.unpack_from("<H", content, vtable)[0]:
            return 0
        offset: int = struct.unpack_from("<H", content, vtable + entry)[0]
        return table + offset if offset else 0

    header = field(struct.unpack_from("<I", content)[0], 2)
    return field(header + struct.unpack_from("<I", content, header)[0], 3) != 0


def read_parquet(
    file: pa.NativeFile,
    columns: Sequence[str] | None = None,
    *,
    schema: pa.Schema | None = None,
    nullable: Sequence[str] = (),
) -> pa.Table:
    """Return the columns of a Parquet file (default: all), with valid offsets and, where the file has checksums,
    correct ones.

    schema: columns that it must have, if they are among `columns`, with their types; others are allowed. nullable:
    names of those that may contain nulls. Raises ValueError or pyarrow's errors if the file is damaged."""
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    size = file.size()
    groups = [parquet.metadata.row_group(group) for group in range(parquet.metadata.num_row_groups)]
    rows, expanded = sum(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)
    if (
        rows != parquet.metadata.num_rows
        or rows > size * MAX_ROWS_PER_BYTE
        or min([0, *(g.num_rows for g in groups)]) < 0
    ):
        raise ValueError(f"{parquet.metadata.num_rows} rows in {size} bytes")
    if expanded > max(size * MAX_BYTES_PER_BYTE, SMALL_FILE):
        raise ValueError(f"{expanded} bytes of columns in {size} bytes")
    found = parquet.schema_arrow
    checked = [field for field in schema or () if columns is None or field.name in columns]
    for name in [*(columns or ()), *(field.name for field in checked)]:
        if name not in found.names:
            raise ValueError(f"column {name} is missing")
    for field in checked:
        if found.field(field.name).type != field.type:
            raise ValueError(f"column {field.name} is {found.field(field.name).type}, must be {field.type}")
    table = parquet.read(columns=None if columns is None else list(columns))
    table.validate(full=True)
    for field in checked:
        if field.name not in nullable and table.column(field.name).null_count:
            raise ValueError(f"column {field.name} contains nulls")
    return table
