"""Scores: one Parquet table, a row a video: its key, label and class probabilities. Joined by key, never by row."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage import folder_and_name

FORMAT = "lgd-scores"
VERSION = 1
METADATA = b"lgd"
UNLABELLED = -1
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


def write_scores(path: str, scores: Scores) -> None:
    """Writes a table with columns key, label (null where there is none) and probabilities (a list of classes floats).

    The schema's metadata has classes, split and `about`."""
    metadata = {"format": FORMAT, "version": VERSION, "classes": scores.classes, "split": scores.split}
    labels = pa.array(scores.labels, pa.int32(), mask=scores.labels == UNLABELLED)
    flat = pa.array(np.ascontiguousarray(scores.probabilities, np.float32).ravel())
    table = pa.table(
        {
            "key": pa.array(scores.keys, pa.string()),
            "label": labels,
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, len(scores.classes)),
        }
    ).replace_schema_metadata({METADATA: json.dumps({**metadata, "about": scores.about})})
    folder, name = folder_and_name(path)
    folder.make_folder()
    with folder.writer(name) as file:
        pq.write_table(table, file)


def read_scores(path: str) -> Scores:
    """Raises UserError for a file that is missing, not scores, of another version, or whose rows are not sound."""
    folder, name = folder_and_name(path)
    if not folder.exists(name):
        raise UserError(f"there is no file {path}: make it with `lgd evaluate RUN --data DATASET --out {path}`")
    try:
        with folder.open_whole(name) as file:
            table = pq.read_table(file)
        metadata = json.loads(table.schema.metadata[METADATA])
        if metadata["format"] != FORMAT:
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
