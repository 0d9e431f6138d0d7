"""Every file of a dataset, damaged or forged: read as before, or refused with one line that names it; never a
traceback, a signal or a hang.

LGD_MUTATIONS=5000 pytest -s tests/pipeline/dataset/test_damaged_files.py tries 5000 random mutations per kind."""

import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import METADATA, SCHEMA
from lgd.pipeline.dataset.index_parts import read_part
from lgd.pipeline.dataset.shard_file import scan_shard
from lgd.pipeline.dataset.tables import MANIFEST, MANIFEST_SCHEMA, read_table
from lgd.pipeline.inspection.dali_index import dali_index
from lgd.pipeline.inspection.describe import describe
from lgd.pipeline.inspection.verify import verify
from lgd.pipeline.loading.reader import ClipReader
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.shard_tar import read_shard
from tests.support.mutations import MUTATIONS, Kind, mutate_bytes, mutate_json, named_json, read_mutated, table

SHARD = "train-000000"
# Kinds whose values have checksums: a random change is noticed. A forger can write checksums too; a change of a label,
# a split or a number of frames is then found by `verify`, as the fingerprint in dataset.json has them.
CHECKSUMS = {"videos.parquet", "rejected.parquet", "manifest.parquet", "shard"}


def read_description(folder: Path) -> Any:
    dataset = open_dataset(folder)
    description = describe(dataset)
    rows = {stream: Index(dataset, stream).rows("train").tolist() for stream in dataset.streams}
    fields = dataset.fingerprint, dataset.classes, dataset.videos_per_shard, dict(dataset.specs), dict(dataset.summary)
    return fields, rows, description.document()


def read_index(folder: Path) -> Any:
    index = Index(open_dataset(folder), "rgb")
    reader = ClipReader(index)
    rows = range(len(index))
    frames = [[frame.tobytes() for frame in reader.read(row, np.array([0, 7, 3, 39]))] for row in rows]
    shown = index.labels.tolist(), index.widths.tolist(), index.heights.tolist(), index.lengths.tolist()
    return index.keys(rows), index.shards(), [index.shard_identity(row) for row in rows], shown, frames


def read_videos(folder: Path) -> Any:
    return open_dataset(folder).videos().to_pylist()


def read_rejected(folder: Path) -> Any:
    return open_dataset(folder).rejected().to_pylist()


def read_manifest(folder: Path) -> Any:
    return Manifest.from_table(read_table(open_dataset(folder).storage, MANIFEST, schema=MANIFEST_SCHEMA))


def read_one_part(folder: Path) -> Any:
    part, record = read_part(open_dataset(folder).storage, "rgb", SHARD)
    return part.to_pylist(), record


def read_tar(folder: Path) -> Any:
    dataset = open_dataset(folder)
    index = Index(dataset, "rgb")
    reader = ClipReader(index)
    rows = index.shards()[SHARD].values()
    frames = [[frame.tobytes() for frame in reader.read(row, np.arange(index.lengths[row]))] for row in rows]
    copied = list(read_shard(dataset.storage, "rgb", SHARD))
    return scan_shard(dataset.storage, "rgb", SHARD), frames, copied, dali_index(dataset.storage, f"rgb/{SHARD}.tar")


def arrow_file(rows: pa.Table, metadata: dict[bytes, bytes] | None, options: Any = None) -> bytes:
    sink = pa.BufferOutputStream()
    rows = rows.replace_schema_metadata(metadata)
    with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def with_column(rows: pa.Table, name: str, column: Any) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)


def named_arrow(content: bytes) -> dict[str, bytes]:
    """Forged indexes and parts with the right structure, and offsets beyond their buffers in the original."""
    rows = pa.ipc.open_file(content).read_all().combine_chunks()
    metadata = dict(rows.schema.metadata)
    count = rows.num_rows
    named = {
        "empty": b"",
        "another format": b"PAR1" + content,
        "only the magic": b"ARROW1\0\0ARROW1",
        "no rows": arrow_file(rows.slice(0, 0), metadata),
        "without metadata": arrow_file(rows, None),
        "twice": arrow_file(pa.concat_tables([rows, rows]), metadata),
        "lz4": arrow_file(rows, metadata, pa.ipc.IpcWriteOptions(compression="lz4")),
        "zstd": arrow_file(rows, metadata, pa.ipc.IpcWriteOptions(compression="zstd")),
        "zstd, 256 MB in 10 kB": arrow_file(
            with_column(rows, "key", pa.array(["x" * (256 << 20)] * 1 + ["y"] * (count - 1))),
            metadata,
            pa.ipc.IpcWriteOptions(compression="zstd"),
        ),
        "dictionary": arrow_file(with_column(rows, "split", rows["split"].dictionary_encode()), metadata),
    }
    for text in (b"", b"{", b"[]", b"{}", b"[" * 100_000, b'{"recipe": NaN}', b'{"stream": 1, "recipe": 1}'):
        named[f"metadata {text[:20]!r}"] = arrow_file(rows, {**metadata, METADATA: text})
    for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
        named[f"without {name}"] = arrow_file(rows.drop_columns([name]), metadata)
        named[f"{name} with null"] = arrow_file(
            with_column(rows, name, pa.array([None, *rows[name].to_pylist()[1:]], kind)), metadata
        )
        other = pa.array([b"x"] * count) if name != "key" else pa.array(range(count))
        named[f"{name} of another type"] = arrow_file(with_column(rows, name, other), metadata)
    wrong: dict[str, list[Any]] = {
        "key": ["../../x", "", "a/b", "a b", "ä", "x" * 100_000, rows["key"][1].as_py()],
        "split": ["val-", "../x", ""],
        "shard": ["../../x-000000", "/etc/x-000000", "train-9", "", "test-000000", "train-00000a"],
        "label": [-2, -(1 << 31), 6, (1 << 31) - 1],
        "width": [0, -1],
        "height": [0, -(1 << 31)],
        "offset": [-1, 1 << 62, (1 << 63) - 1, 1 << 52, -(1 << 63)],
        "ends": [[], [5], [9, 5], [0] * 40, list(range(40, 0, -1)), [1 << 31] * 40],
        "crc32": [[], [1], [0] * 41],
    }
    for name, values in wrong.items():
        for value in values:
            column = pa.array([value, *rows[name].to_pylist()[1:]], SCHEMA.field(name).type)
            named[f"{name} {str(value)[:30]!r}"] = arrow_file(with_column(rows, name, column), metadata)
    for name in ("key", "split", "shard", "ends", "crc32"):
        offsets = pa.ipc.open_file(content).get_batch(0).column(name).buffers()[1].to_pybytes()[: 4 * count]
        place = content.find(offsets)
        for entry in (0, 1, 2):
            for value in (-1, 1 << 20, 1 << 30, (1 << 31) - 1):
                forged = bytearray(content)
                forged[place + 4 * entry : place + 4 * entry + 4] = value.to_bytes(4, "little", signed=True)
                named[f"offset {entry} of {name} is {value}"] = bytes(forged)
    return named


def named_parquet(content: bytes) -> dict[str, bytes]:
    """Forged tables with the right structure."""
    rows = pq.read_table(pa.BufferReader(content))
    named = {"empty": b"", "another format": b"ARROW1" + content, "only the magic": b"PAR1PAR1"}

    def add(name: str, changed: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(changed, sink)
        named[name] = sink.getvalue().to_pybytes()

    add("a column", pa.table({"x": [1]}))
    add(
        "a million rows",
        pa.table({name: pa.nulls(1_000_000, rows.schema.field(name).type) for name in rows.column_names}),
    )
    for name in rows.column_names:
        add(f"without {name}", rows.drop_columns([name]))
        if rows.num_rows:
            add(f"{name} of nulls", with_column(rows, name, pa.nulls(rows.num_rows, rows.schema.field(name).type)))
            add(f"{name} of another type", with_column(rows, name, pa.array([[1]] * rows.num_rows)))
            if pa.types.is_integer(kind := rows.schema.field(name).type):
                for value in (-1, (1 << 31) - 1):
                    values = [value, *rows[name].to_pylist()[1:]]
                    add(f"{name} is {value}", with_column(rows, name, pa.array(values, kind)))
    if rows.num_rows:
        add("a row twice", pa.concat_tables([rows, rows.slice(0, 1)]))
    return named


def named_tar(content: bytes) -> dict[str, bytes]:
    """Tars with members that no shard has: links, sparse files, sizes that go back or beyond the end."""
    named = {"empty": b"", "another format": b"PK\x03\x04" + content, "two end blocks": bytes(1024)}

    def with_header(name: str, change: Callable[[bytearray], None]) -> None:
        header = bytearray(content[:512])
        change(header)
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        named[name] = bytes(header) + content[512:]

    def put(first: int, value: bytes, header: bytearray) -> None:
        header[first : first + len(value)] = value

    for kind in b"123456gxLKSDV7":
        with_header(f"type {chr(kind)}", partial(put, 156, bytes([kind])))
    for size in (
        b"77777777777\0",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"\x80" + bytes(7) + b"\x7f\xff\xff\xff",
        b"-1\0",
    ):
        with_header(f"size {size!r}", partial(put, 124, size))
        for kind in b"xLS":

            def both(header: bytearray, size: bytes = size, kind: int = kind) -> None:
                put(124, size, header)
                put(156, bytes([kind]), header)

            with_header(f"size {size!r} of type {chr(kind)}", both)
    for member in (b"../../x.json\0", b"/etc/x.json\0", b"x\0", b"x.exe\0", b".json\0", b"\xff.json\0"):
        with_header(f"name {member!r}", partial(put, 0, member))
    name_end = content.index(b"\0")
    links = bytearray(content[:512])
    links[156:157], links[157 : 157 + name_end] = b"2", content[:name_end]
    named["a link to itself"] = bytes(links) + content[512:]
    named["very many extended headers"] = _extended_headers(5000) + content
    return named


def _extended_headers(count: int) -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    return header.tobuf() * count


def sample_json(tar: bytes, numbers: Any) -> bytes:
    """Change the JSON of the first video, in a tar that is valid otherwise."""
    size = int(tar[124:135], 8)
    text = mutate_json(tar[512 : 512 + size], numbers)
    header = bytearray(tar[:512])
    header[124:136] = f"{len(text):011o}\0".encode()
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + text + bytes(-len(text) % 512) + tar[512 + -(-size // 512) * 512 :]


@pytest.fixture
def folder(dataset_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(dataset_folder, tmp_path / "data")
    return tmp_path / "data"


def kinds_of(folder: Path) -> dict[str, Kind]:
    def kind(name: str, mutate: Any, read: Any, named: Callable[[bytes], dict[str, bytes]]) -> Kind:
        return Kind(folder / name, mutate, read, named((folder / name).read_bytes()))

    return {
        "dataset.json": kind("dataset.json", mutate_json, read_description, named_json),
        "index.arrow": kind("rgb/index.arrow", mutate_bytes, read_index, named_arrow)._replace(other=".tar, from byte"),
        "part": kind(f"rgb/.parts/{SHARD}.arrow", mutate_bytes, read_one_part, named_arrow),
        "videos.parquet": kind("videos.parquet", mutate_bytes, read_videos, named_parquet),
        "rejected.parquet": kind("rejected.parquet", mutate_bytes, read_rejected, named_parquet),
        "manifest.parquet": kind("manifest.parquet", mutate_bytes, read_manifest, named_parquet),
        "shard": kind(f"rgb/{SHARD}.tar", mutate_bytes, read_tar, named_tar),
        "json in a shard": kind(f"rgb/{SHARD}.tar", sample_json, read_tar, lambda _: {}),
    }


def test_a_damaged_file_is_read_as_before_or_refused_with_one_line(folder: Path):
    kinds = kinds_of(folder)
    outcomes = read_mutated(folder, kinds, MUTATIONS or 20)
    print("\n" + table(outcomes))
    wrong = [each for each in outcomes if each.text not in ("same", "refused", "different")]
    assert wrong == [], table(wrong)
    random = [each for each in outcomes if each.text == "different" and each.mutation.isdigit()]
    assert [each for each in random if each.kind in CHECKSUMS] == []


def test_verify_finds_changed_labels_that_nothing_else_notices(folder: Path):
    dataset = open_dataset(folder)
    rows, labels = dataset.videos(), Index(dataset, "rgb").labels[:4]
    changed = pa.array([5 - label for label in rows["label"].to_pylist()], pa.int32())
    sink = pa.BufferOutputStream()
    pq.write_table(with_column(rows, "label", changed), sink)
    index, description = (folder / "rgb/index.arrow").read_bytes(), (folder / "dataset.json").read_bytes()
    assert index.count(labels.tobytes()) == 1
    for name, content in (
        ("videos.parquet", sink.getvalue().to_pybytes()),
        ("rgb/index.arrow", index.replace(labels.tobytes(), (5 - labels).tobytes())),
        ("dataset.json", description.replace(b'"down"', b'"town"')),
    ):
        valid = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        assert any("dataset.json" in problem for problem in verify(open_dataset(folder), ["rgb"])), name
        (folder / name).write_bytes(valid)
    assert verify(open_dataset(folder), ["rgb", "flow"]) == []
