"""Score tables joined by key: the same videos in the same rows, whatever rows and row groups the files had."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.scoring.scores import UNLABELLED, Scores, named


@dataclass(frozen=True)
class Joined:
    """Tables of the same classes, split, keys and labels, row by row, in the order of the first table's keys.

    dropped: by table, how many of its videos are left out because another table lacks them."""

    inputs: tuple[Scores, ...]
    dropped: dict[str, int]

    @property
    def first(self) -> Scores:
        """Has the keys, labels, classes and split of all."""
        return self.inputs[0]


def join(tables: Sequence[Scores], intersect: bool = False) -> Joined:
    """Joins one table or more.

    intersect: go on with the keys that all have. Raises UserError, naming them, for tables that do not match: other
    classes or another order of them, another split, keys that one of them lacks, labels that differ. Raises UsageError
    for a table that is given twice."""
    names = [table.name for table in tables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{named(twice)} is given more than once: each score file counts once, with its weight")
    first = tables[0]
    for other in tables[1:]:
        check_classes(first, other)
        if first.split != other.split:
            raise UserError(
                f"{first.name} and {other.name} are of other splits ({first.split}, {other.split}): "
                "evaluate both on one split"
            )
    row_of = [{key: row for row, key in enumerate(table.keys)} for table in tables]
    if not intersect:
        for other, rows in zip(tables[1:], row_of[1:], strict=True):
            _check_keys(first, other, row_of[0].keys(), theirs=rows.keys())
    common = set.intersection(*(set(rows) for rows in row_of))
    if not common:
        raise UserError(f"{' and '.join(names)} have no video in common: evaluate them on the same videos")
    keys = [key for key in first.keys if key in common]
    inputs = tuple(_in_order(table, keys, rows) for table, rows in zip(tables, row_of, strict=True))
    for other in inputs[1:]:
        differ = np.flatnonzero(inputs[0].labels != other.labels)
        if len(differ):
            raise UserError(
                f"{first.name} and {other.name} disagree on the label of {named([keys[row] for row in differ])}: "
                "evaluate both on the same dataset"
            )
    return Joined(inputs, {table.name: len(table.keys) - len(keys) for table in tables})


def check_classes(first: Scores, other: Scores) -> None:
    """Raises UserError for another class list, or another order of it."""
    both = f"{first.name} and {other.name}"
    if first.classes == other.classes:
        return
    if sorted(first.classes) == sorted(other.classes):
        where = next(i for i, (a, b) in enumerate(zip(first.classes, other.classes, strict=True)) if a != b)
        raise UserError(
            f"{both} have the same classes in another order (class {where} is {first.classes[where]!r} and "
            f"{other.classes[where]!r}): evaluate both on datasets with one class list"
        )
    only = sorted(set(first.classes) ^ set(other.classes))
    raise UserError(f"{both} have other classes (not in both: {named(only)}): fuse scores of one class list")


def unlabelled(scores: Scores) -> list[str]:
    """Keys of the videos that have no label."""
    return [scores.keys[row] for row in np.flatnonzero(scores.labels == UNLABELLED)]


def _check_keys(first: Scores, other: Scores, ours: Collection[str], *, theirs: Collection[str]) -> None:
    missing = [key for key in ours if key not in theirs]
    extra = [key for key in theirs if key not in ours]
    if missing or extra:
        parts = [
            f"{len(keys)} only in {name}: {named(keys)}"
            for keys, name in ((missing, first.name), (extra, other.name))
            if keys
        ]
        raise UserError(
            f"{first.name} and {other.name} are of other videos ({'; '.join(parts)}): evaluate both on the same "
            "videos, or go on with the common ones with --intersect"
        )


def _in_order(table: Scores, keys: list[str], row_of: dict[str, int]) -> Scores:
    if table.keys == keys:
        return table
    rows = np.array([row_of[key] for key in keys])
    return replace(table, keys=keys, labels=table.labels[rows], probabilities=table.probabilities[rows])
