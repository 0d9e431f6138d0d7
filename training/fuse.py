"""Late fusion: the weighted mean of the streams' probabilities, joined by key (equal weights in the paper)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import UsageError, UserError
from training.metrics import summary
from training.scores import UNLABELLED, Scores, named


def fuse(inputs: Sequence[Scores], weights: Sequence[float] | None = None) -> Scores:
    """Fused scores, in the order of the first input's keys.

    weights: one an input, not all 0; scaled to a sum of 1; equal by default.
    Raises UsageError for weights that do not fit, and UserError, naming them, for inputs that do not match: other
    classes or another order of them, another split, keys that one of them lacks, labels that differ."""
    if len(inputs) < 2:
        raise UsageError("fusing takes two or more score files")
    given = np.ones(len(inputs)) if weights is None else np.asarray(weights, np.float64)
    if len(given) != len(inputs):
        raise UsageError(f"{len(inputs)} score files need as many --weights, not {len(given)}")
    if not np.isfinite(given).all() or (given < 0).any() or given.sum() == 0:
        raise UsageError(f"weights must be 0 or more, and not all 0; these are {' '.join(map(str, given))}")
    given = given / given.sum()
    first = inputs[0]
    rows = [_rows_in_order(first, other) for other in inputs]
    fused = sum(
        weight * other.probabilities[order].astype(np.float64)
        for weight, other, order in zip(given, inputs, rows, strict=True)
    )
    about = {
        "stream": "fused",
        "inputs": [{"name": other.name, **other.about} for other in inputs],
        "weights": given.tolist(),
    }
    return Scores("fused", first.keys, first.labels, np.asarray(fused, np.float32), first.classes, first.split, about)


def comparison(inputs: Sequence[Scores], fused: Scores) -> dict[str, Any]:
    """Metrics of each input and of the fusion. Raises UserError if there are unlabelled videos."""
    return {"inputs": {scores.name: metrics(scores) for scores in inputs}, "fused": metrics(fused)}


def metrics(scores: Scores) -> dict[str, float | int]:
    """Raises UserError for a table with unlabelled videos, which have no accuracy."""
    unlabelled = [key for key, label in zip(scores.keys, scores.labels, strict=True) if label == UNLABELLED]
    if unlabelled:
        raise UserError(f"{scores.name} has no label for {named(unlabelled)}: accuracy needs labelled videos")
    return summary(scores.probabilities, scores.labels)


def _rows_in_order(first: Scores, other: Scores) -> np.ndarray:
    """For each key of `first` its row in `other`."""
    both = f"{first.name} and {other.name}"
    if first.classes != other.classes:
        if sorted(first.classes) == sorted(other.classes):
            where = next(i for i, (a, b) in enumerate(zip(first.classes, other.classes, strict=True)) if a != b)
            raise UserError(
                f"{both} have the same classes in another order (class {where} is {first.classes[where]!r} and "
                f"{other.classes[where]!r}): evaluate both on datasets with one class list"
            )
        only = sorted(set(first.classes) ^ set(other.classes))
        raise UserError(f"{both} have other classes (not in both: {named(only)}): fuse scores of one class list")
    if first.split != other.split:
        raise UserError(f"{both} are of other splits ({first.split}, {other.split}): evaluate both on one split")
    row_of = {key: row for row, key in enumerate(other.keys)}
    missing = [key for key in first.keys if key not in row_of]
    extra = sorted(row_of.keys() - set(first.keys))
    if missing or extra:
        parts = [f"{named(keys)} only in {name}" for keys, name in ((missing, first.name), (extra, other.name)) if keys]
        raise UserError(f"{both} are of other videos ({'; '.join(parts)}): evaluate both on the same videos")
    rows = np.array([row_of[key] for key in first.keys])
    differ = [key for key, a, b in zip(first.keys, first.labels, other.labels[rows], strict=True) if a != b]
    if differ:
        raise UserError(f"{both} disagree on the label of {named(differ)}: evaluate both on the same dataset")
    return rows
