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
precision, data, data_recipe, fingerprint) and `identity`, by which `lgd evaluate` recognizes its finished work.

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
import pyarrow.parquet as pq

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.storage.retries import with_retries
from lgd.pipeline.storage.storage import folder_and_name
from lgd.training.run import check_version

FORMAT = "lgd-scores"
VERSION = 1
METADATA = b"lgd"
COLUMNS = ["key", "label", "probabilities"]
ROW_GROUP_BYTES = 64 << 20
MAX_KEYS_SHOWN = 3  # in a message
SUM_TOLERANCE = 1e-3  # of a row of probabilities


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
            writer = writer or pq.ParquetWriter(file, table.schema)
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
            identity = json.loads(pq.read_schema(file).metadata[METADATA]).get("identity")
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, AttributeError):
        return None
    return identity if isinstance(identity, str) else None


def read_scores(path: str) -> Scores:
    """Read keys, labels and probabilities of a score file; the other columns are not read.

    Raises UserError for a file that is missing, is not a score file, has another version, or has invalid rows."""
    folder, name = folder_and_name(path)
    if not folder.exists(name):
        raise UserError(f"{path} is missing: create it with `lgd evaluate RUN --data DATASET --out {path}`")
    try:
        # The optional columns can be large: a remote file is not read completely, and a failed read starts again.
        table = with_retries(folder.display(name), lambda: pq.read_table(folder.open(name), columns=COLUMNS))
        header = json.loads(table.schema.metadata[METADATA])
        if header["format"] != FORMAT or not isinstance(header["about"], dict):
            raise KeyError("format")
        check_version(f"{path} is a score file", header["version"], VERSION, otherwise="run `lgd evaluate` again")
        classes = tuple(header["classes"])
        column = table.column("probabilities").combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False)
        if column.null_count or len(values) != table.num_rows * len(classes):
            raise UserError(
                f"{path} has rows without {len(classes)} probabilities, one per class: run `lgd evaluate` again"
            )
        labels = table.column("label").fill_null(UNLABELLED).to_numpy().astype(np.int64)
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a score file of `lgd evaluate` or `lgd fuse` ({error})") from error
    scores = Scores(
        path,
        table.column("key").to_pylist(),
        labels,
        values.reshape(-1, len(classes)).astype(np.float32),
        classes,
        header["split"],
        header["about"],
    )
    _check_rows(scores)
    return scores


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
