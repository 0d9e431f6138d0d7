"""Scores: one Parquet table, a row a video, joined by key, never by row.

| column | type | what |
|---|---|---|
| key | string | the video's, unique |
| label | int32 | number of its class; null where there is none |
| probabilities | classes x float32 | mean over the video's views |
| clip_probabilities | views x classes x float32 | of each view: clip by clip, and of each clip crop by crop |
| local_features | views x C x float32 | GAP(x_L), the last local representation |
| global_features | views x C x float32 | g_L, the last global one; networks without LGD have none |

The last three are there when they were asked for. The schema's metadata, JSON under the key `lgd`, has format, version,
classes, split, `about` (stream, model, recipe, run, step, checkpoint, protocol, clips, crops, frames, precision, data,
data_recipe, fingerprint) and what `lgd evaluate` knows its finished work by, `identity`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.retries import with_retries
from lgd.pipeline.storage.storage import folder_and_name

FORMAT = "lgd-scores"
VERSION = 1
METADATA = b"lgd"
UNLABELLED = -1
COLUMNS = ["key", "label", "probabilities"]
ROW_GROUP_BYTES = 64 << 20
SHOWN = 3  # keys that an error names


@dataclass(frozen=True)
class Scores:
    """Predictions for the videos of a split.

    name: what messages call them (the file). labels: int64, N, UNLABELLED where there is none.
    probabilities: float32, N x classes. about: stream, model, recipe, protocol and where they come from."""

    name: str
    keys: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    split: str
    about: dict[str, Any] = field(default_factory=dict)


def score_table(
    keys: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, *, views: Mapping[str, np.ndarray]
) -> pa.Table:
    """Rows of the table. labels: N, UNLABELLED where there is none. probabilities: N x classes. views: by the names of
    the columns that there are, N x views x classes or C."""
    columns = {
        "key": pa.array(keys, pa.string()),
        "label": pa.array(labels, pa.int32(), mask=np.asarray(labels) == UNLABELLED),
        "probabilities": _lists(probabilities),
    }
    return pa.table(columns | {name: _lists(values) for name, values in views.items()})


def _lists(values: np.ndarray) -> pa.Array:
    """N x ... as a column of lists of fixed lengths, of float32."""
    column = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    for length in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


@contextmanager
def scores_writer(
    path: str, classes: Sequence[str], split: str, *, about: Mapping[str, Any], identity: str | None = None
) -> Iterator[Callable[[pa.Table], None]]:
    """What takes the rows of a table, piece by piece in order, which appears when the block ends well."""
    described = {"format": FORMAT, "version": VERSION, "classes": list(classes), "split": split, "about": dict(about)}
    metadata = {METADATA: json.dumps(described if identity is None else {**described, "identity": identity})}
    folder, name = folder_and_name(path)
    folder.make_folder()
    with folder.writer(name) as file:
        writer: pq.ParquetWriter | None = None
        waiting: list[pa.Table] = []

        def flush() -> None:
            nonlocal writer
            table = pa.concat_tables(waiting).replace_schema_metadata(metadata)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            waiting.clear()

        def write(table: pa.Table) -> None:
            waiting.append(table)
            if sum(piece.nbytes for piece in waiting) > ROW_GROUP_BYTES:
                flush()

        yield write
        if waiting:
            flush()
        if writer:
            writer.close()


def write_scores(path: str, scores: Scores) -> None:
    """Writes a table without views."""
    with scores_writer(path, scores.classes, scores.split, about=scores.about) as write:
        write(score_table(scores.keys, scores.labels, scores.probabilities, views={}))


def identity_of(path: str) -> str | None:
    """What `scores_writer` was given with a finished table; None for anything else."""
    folder, name = folder_and_name(path)
    if folder.size(name) is None:
        return None
    try:
        with folder.open(name) as file:
            return json.loads(pq.read_schema(file).metadata[METADATA]).get("identity")
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, AttributeError):
        return None


def read_scores(path: str) -> Scores:
    """Keys, labels and probabilities of a table; other columns are left alone.

    Raises UserError for a file that is missing, not scores, of another version, or whose rows are not sound."""
    folder, name = folder_and_name(path)
    if not folder.exists(name):
        raise UserError(f"there is no file {path}: make it with `lgd evaluate RUN --data DATASET --out {path}`")
    try:
        # A remote file is not taken into memory whole, for the sake of views: a read that faults begins anew.
        table = with_retries(folder.display(name), lambda: pq.read_table(folder.open(name), columns=COLUMNS))
        metadata = json.loads(table.schema.metadata[METADATA])
        if metadata["format"] != FORMAT or not isinstance(metadata["about"], dict):
            raise KeyError("format")
        if metadata["version"] != VERSION:
            raise UserError(
                f"{path} holds scores of version {metadata['version']}, and this program reads version {VERSION}: "
                "evaluate again"
            )
        classes = tuple(metadata["classes"])
        column = table.column("probabilities").combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if column.null_count or len(flat) != table.num_rows * len(classes):
            raise UserError(f"{path} has rows whose probabilities are not {len(classes)}, one a class: evaluate again")
        labels = table.column("label").fill_null(UNLABELLED).to_numpy().astype(np.int64)
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} does not hold scores of `lgd evaluate` or `lgd fuse` ({error})") from error
    scores = Scores(
        path,
        table.column("key").to_pylist(),
        labels,
        flat.reshape(-1, len(classes)).astype(np.float32),
        classes,
        metadata["split"],
        metadata["about"],
    )
    _check(scores)
    return scores


def named(keys: list[str]) -> str:
    """The first few of keys, and how many there are."""
    few = ", ".join(keys[:SHOWN])
    return few if len(keys) <= SHOWN else f"{few} and {len(keys) - SHOWN} more"


def _check(scores: Scores) -> None:
    if not scores.keys:
        raise UserError(f"{scores.name} is empty: evaluate again")
    distinct, counts = np.unique(scores.keys, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{scores.name} has keys more than once: {named(distinct[counts > 1].tolist())}")
    sums = scores.probabilities.sum(axis=1, dtype=np.float64)
    sound = np.isfinite(scores.probabilities).all(axis=1) & (scores.probabilities >= 0).all(axis=1)
    wrong = ~(sound & (np.abs(sums - 1) < 1e-3))
    if wrong.any():
        bad = [key for key, is_wrong in zip(scores.keys, wrong, strict=True) if is_wrong]
        raise UserError(f"{scores.name} has rows that are not probabilities (NaN, or their sum is not 1): {named(bad)}")
    outside = scores.labels[(scores.labels < UNLABELLED) | (scores.labels >= len(scores.classes))]
    if len(outside):
        raise UserError(f"{scores.name} has the label {outside[0]}, but only {len(scores.classes)} classes")
