"""Score files: one Parquet table with one row per video, joined by key and never by row number.

| column | type | content |
|---|---|---|
| key | string | key of the video, unique |
| label | int32 | number of its class; null if the video has no label |
| probabilities | classes x float32 | mean over the views of the video |
| clip_probabilities | views x classes x float32 | of each view: clip by clip, and crop by crop in each clip |
| local_features | views x C x float32 | GAP(x_L), the last local representation |
| global_features | views x C x float32 | g_L, the last global representation; missing for networks without LGD |

The last three columns are optional (`lgd evaluate --keep`). The schema's metadata, JSON under the key `lgd`, has
format, version, classes, split, `about` (stream, model, recipe, run, step, checkpoint, protocol, clips, crops, frames,
precision, data, data_recipe, fingerprint, for a split of splits.parquet also split_hash) and `identity`, by which
`lgd evaluate` recognizes its finished work.

Compatibility: this version reads score files of version 1, which lgd 0.1 and later write. The version rises only if
earlier versions of lgd would misread a file; additional columns and metadata do not need it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.storage.checked_arrow import damaged_if_invalid, read_parquet
from lgd.pipeline.storage.checked_json import DamagedFile, parse_json, read_json
from lgd.pipeline.storage.storage import folder_and_name
from lgd.training.run import check_version

FORMAT = "lgd-scores"
VERSION = 1
METADATA = b"lgd"
COLUMNS = ["key", "label", "probabilities"]
ROW_GROUP_BYTES = 64 << 20
MAX_KEYS_SHOWN = 3  # in a message
SUM_TOLERANCE = 1e-3  # of a row of probabilities
NOT_SCORES = "it is not a score file of `lgd evaluate` or `lgd fuse`, or was changed since; create it again"


@dataclass(frozen=True)
class Scores:
    """Class probabilities of the videos of a split.

    name: the name in messages (the path of the file). labels: int64, N, UNLABELLED for a video without a label.
    probabilities: float32, N x classes. metadata: `about` of the file: stream, model, recipe, protocol and so on."""

    name: str
    keys: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    split: str
    metadata: dict[str, Any] = field(default_factory=dict)


def score_table(
    keys: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, *, views: Mapping[str, np.ndarray]
) -> pa.Table:
    """Return rows of a score file. labels: N, UNLABELLED for a video without a label. probabilities: N x classes.
    views: the optional columns by name, N x views x classes or N x views x C."""
    columns = {
        "key": pa.array(keys, pa.string()),
        "label": pa.array(labels, pa.int32(), mask=np.asarray(labels) == UNLABELLED),
        "probabilities": _list_column(probabilities),
    }
    return pa.table(columns | {name: _list_column(values) for name, values in views.items()})


def _list_column(values: np.ndarray) -> pa.Array:
    """Return values, N x ..., as a column of fixed-size lists of float32."""
    column = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    for length in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


@contextmanager
def scores_writer(
    path: str, classes: Sequence[str], split: str, *, metadata: Mapping[str, Any], identity: str | None = None
) -> Iterator[Callable[[pa.Table], None]]:
    """Write a score file: yields a function that takes its rows, table by table, in order. The file appears only if the
    block ends without an exception."""
    header = {"format": FORMAT, "version": VERSION, "classes": list(classes), "split": split, "about": dict(metadata)}
    schema_metadata = {METADATA: json.dumps(header if identity is None else {**header, "identity": identity})}
    folder, name = folder_and_name(path)
    folder.make_folder()
    with folder.writer(name) as file:
        writer: pq.ParquetWriter | None = None
        buffered: list[pa.Table] = []

        def flush() -> None:
            nonlocal writer
            table = pa.concat_tables(buffered).replace_schema_metadata(schema_metadata)
            writer = writer or pq.ParquetWriter(file, table.schema, write_page_checksum=True)
            writer.write_table(table)
            buffered.clear()

        def write(table: pa.Table) -> None:
            buffered.append(table)
            if sum(piece.nbytes for piece in buffered) > ROW_GROUP_BYTES:
                flush()

        yield write
        if buffered:
            flush()
        if writer:
            writer.close()


def write_scores(path: str, scores: Scores) -> None:
    """Write a score file without the optional columns."""
    with scores_writer(path, scores.classes, scores.split, metadata=scores.metadata) as write:
        write(score_table(scores.keys, scores.labels, scores.probabilities, views={}))


def identity_of(path: str) -> str | None:
    """Return the identity that a score file was written with; None for any other file and for a missing one."""
    folder, name = folder_and_name(path)
    if folder.size(name) is None:
        return None
    try:
        with folder.open(name) as file:
            return _read_header(pq.read_schema(file), path).identity
    except (DamagedFile, pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        return None


def read_scores(path: str) -> Scores:
    """Read keys, labels and probabilities of a score file; the other columns are not read.

    Raises UserError for a file that is missing, is not a score file, has another version, or has invalid rows."""
    folder, name = folder_and_name(path)
    if not folder.exists(name):
        raise UserError(f"{path} is missing: create it with `lgd evaluate RUN --data DATASET --out {path}`")
    # The optional columns can be large: a remote file is not read completely.
    with damaged_if_invalid(path, NOT_SCORES), folder.open_ranges(name) as file:
        header = _read_header(pq.read_schema(file), path)
        file.seek(0)
        table = read_parquet(file, COLUMNS, nullable=["label"])
    return rows_of(path, table, tuple(header.classes), split=header.split, metadata=header.about)


def rows_of(name: str, table: pa.Table, classes: tuple[str, ...], *, split: str, metadata: dict[str, Any]) -> Scores:
    """Return rows of a score file, checked. name: of the file.

    Raises DamagedFile for columns of other types, and UserError for rows that are not probabilities."""
    with damaged_if_invalid(name, NOT_SCORES):
        if not pa.types.is_string(table.schema.field("key").type) or table.column("key").null_count:
            raise ValueError("column key is not text")
        if not pa.types.is_integer(table.schema.field("label").type):
            raise ValueError("column label is not whole numbers")
        column = table.column("probabilities").combine_chunks()
        if not pa.types.is_fixed_size_list(column.type) and not pa.types.is_list(column.type):
            raise ValueError("column probabilities is not lists")
        lengths = pc.list_value_length(column)
        if column.null_count or (len(column) and set(pc.min_max(lengths).as_py().values()) != {len(classes)}):
            raise UserError(
                f"{name} has rows without {len(classes)} probabilities, one per class: run `lgd evaluate` again"
            )
        if not pa.types.is_floating(column.type.value_type):
            raise ValueError("column probabilities is not lists of numbers")
        values = column.flatten().to_numpy(zero_copy_only=False)
        labels = table.column("label").fill_null(UNLABELLED).to_numpy().astype(np.int64)
        keys = table.column("key").to_pylist()
    probabilities = values.reshape(-1, len(classes)).astype(np.float32)
    scores = Scores(name, keys, labels, probabilities, classes, split, metadata)
    _check_rows(scores)
    return scores


@dataclass(frozen=True)
class _Version:
    format: str
    version: int


@dataclass(frozen=True)
class _About:
    """What commands use of `about`. Files of `lgd fuse` have that of their inputs in theirs."""

    stream: str | None = None
    model: str | None = None
    recipe: str | None = None
    run: str | None = None
    step: int | None = None
    protocol: str | None = None
    data: str | None = None
    fingerprint: str | None = None
    split_hash: str | None = None
    name: str | None = None
    inputs: list["_About"] = field(default_factory=list)
    weights: list[float] | None = None
    temperatures: list[float] | None = None
    space: str | None = None


@dataclass(frozen=True)
class _Header:
    """The schema's metadata. `about` is checked as _About, and kept as it is."""

    classes: list[str]
    split: str
    about: dict[str, Any]
    identity: str | None = None


@dataclass(frozen=True)
class _CheckedHeader:
    about: _About


def _read_header(schema: pa.Schema, path: str) -> _Header:
    """Return the metadata of a score file. Raises DamagedFile, which names the field, and UserError for another
    version."""
    text = (schema.metadata or {}).get(METADATA)
    if text is None:
        raise DamagedFile(f"{path} is not a score file of `lgd evaluate` or `lgd fuse`")
    document = parse_json(text, path)
    # A name may contain half of a surrogate pair, which UTF-8 cannot encode.
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    version = read_json(_Version, text, path, advice=NOT_SCORES)
    if version.format != FORMAT:
        raise DamagedFile(f"{path} has the format {version.format[:20]!r}: {NOT_SCORES}")
    check_version(f"{path} is a score file", version.version, VERSION, otherwise="run `lgd evaluate` again")
    header = read_json(_Header, text, path, advice=NOT_SCORES)
    read_json(_CheckedHeader, text, path, advice=NOT_SCORES)
    if not header.classes or len(set(header.classes)) < len(header.classes):
        raise DamagedFile(f"{path}: field 'classes' is empty or contains a name twice: {NOT_SCORES}")
    return _Header(document["classes"], document["split"], document["about"], header.identity)


def unlabelled_keys(scores: Scores) -> list[str]:
    """Return the keys of the videos without a label."""
    return [scores.keys[row] for row in np.flatnonzero(scores.labels == UNLABELLED)]


def labeled_scores(scores: Scores) -> Scores:
    """Return the scores of the videos that have a label."""
    rows = np.flatnonzero(scores.labels != UNLABELLED)
    if len(rows) == len(scores.keys):
        return scores
    keys = [scores.keys[row] for row in rows]
    return replace(scores, keys=keys, labels=scores.labels[rows], probabilities=scores.probabilities[rows])


def shown_keys(keys: Sequence[str]) -> str:
    """Return the first few keys, and the number of the remaining ones, for a message."""
    first = ", ".join(keys[:MAX_KEYS_SHOWN])
    return first if len(keys) <= MAX_KEYS_SHOWN else f"{first} and {len(keys) - MAX_KEYS_SHOWN} more"


def _check_rows(scores: Scores) -> None:
    """Raise UserError for no rows, duplicate keys, rows that are not probabilities and labels that are not classes."""
    if not scores.keys:
        raise UserError(f"{scores.name} has no rows: run `lgd evaluate` again")
    distinct, counts = np.unique(scores.keys, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{scores.name} has duplicate keys: {shown_keys(distinct[counts > 1].tolist())}")
    sums = scores.probabilities.sum(axis=1, dtype=np.float64)
    valid = np.isfinite(scores.probabilities).all(axis=1) & (scores.probabilities >= 0).all(axis=1)
    invalid = ~(valid & (np.abs(sums - 1) < SUM_TOLERANCE))
    if invalid.any():
        keys = [scores.keys[row] for row in np.flatnonzero(invalid)]
        raise UserError(
            f"{scores.name} has rows that are not probabilities (NaN, negative, or their sum is not 1): "
            f"{shown_keys(keys)}"
        )
    outside = scores.labels[(scores.labels < UNLABELLED) | (scores.labels >= len(scores.classes))]
    if len(outside):
        raise UserError(f"{scores.name} has the label {outside[0]}, but only {len(scores.classes)} classes")
