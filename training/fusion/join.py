"""Score tables joined by key: the same videos in the same rows, independent of the order of the files' rows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.scoring.scores import Scores, shown_keys


@dataclass(frozen=True)
class JoinedScores:
    """Score tables with the same classes, split, keys and labels, row by row, in the order of the first table's keys.

    dropped: by table, the number of its videos that are left out because another table lacks them."""

    inputs: tuple[Scores, ...]
    dropped: dict[str, int]

    @property
    def first(self) -> Scores:
        """The first table; its keys, labels, classes and split are those of all."""
        return self.inputs[0]


def join(tables: Sequence[Scores], intersect: bool = False) -> JoinedScores:
    """Join one table or more by key.

    intersect: use only the keys that all tables have. Raises UserError, naming them, for tables that do not match:
    different classes or a different order of them, different splits, missing keys, different labels. Raises UsageError
    for a table that is given twice."""
    names = [table.name for table in tables]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError(
            f"{shown_keys(duplicates)} is given more than once: give each score file once, with its weight"
        )
    first = tables[0]
    for other in tables[1:]:
        check_classes(first, other)
        if first.split != other.split:
            raise UserError(
                f"{first.name} and {other.name} have different splits ({first.split}, {other.split}): "
                "evaluate both on the same split"
            )
        _check_split_hashes(first, other)
    row_of = [{key: row for row, key in enumerate(table.keys)} for table in tables]
    if not intersect:
        for other, rows in zip(tables[1:], row_of[1:], strict=True):
            _check_keys(first, other, row_of[0].keys(), other_keys=rows.keys())
    common = set.intersection(*(set(rows) for rows in row_of))
    if not common:
        raise UserError(f"{' and '.join(names)} have no video in common: evaluate them on the same videos")
    keys = [key for key in first.keys if key in common]
    inputs = tuple(_in_order(table, keys, rows) for table, rows in zip(tables, row_of, strict=True))
    for other in inputs[1:]:
        different = np.flatnonzero(inputs[0].labels != other.labels)
        if len(different):
            raise UserError(
                f"{first.name} and {other.name} have different labels for "
                f"{shown_keys([keys[row] for row in different])}: evaluate both on the same dataset"
            )
    return JoinedScores(inputs, {table.name: len(table.keys) - len(keys) for table in tables})


def _check_split_hashes(first: Scores, other: Scores) -> None:
    """Raise UserError if the splits have the same name and are of tables in which they have different videos."""
    hashes = [scores.metadata.get("split_hash") for scores in (first, other)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise UserError(
            f"{first.name} and {other.name} are of two different splits with the name {first.split}: the tables of "
            "their datasets list different videos for it; evaluate both on the same split"
        )


def check_classes(first: Scores, other: Scores, *, purpose: str = "fused") -> None:
    """Raise UserError for different classes and for a different order of them. purpose: what is done, for the
    message."""
    both = f"{first.name} and {other.name}"
    if first.classes == other.classes:
        return
    if sorted(first.classes) == sorted(other.classes):
        number = next(i for i, (a, b) in enumerate(zip(first.classes, other.classes, strict=True)) if a != b)
        raise UserError(
            f"{both} have the same classes in a different order (class {number} is {first.classes[number]!r} and "
            f"{other.classes[number]!r}): evaluate both on datasets with the same list of classes"
        )
    unshared = sorted(set(first.classes) ^ set(other.classes))
    raise UserError(
        f"{both} have different classes (not in both: {shown_keys(unshared)}): only scores of the same classes can be "
        f"{purpose}"
    )


def _check_keys(first: Scores, other: Scores, first_keys: Collection[str], *, other_keys: Collection[str]) -> None:
    """Raise UserError for keys that only one of two tables has."""
    only_first = [key for key in first_keys if key not in other_keys]
    only_other = [key for key in other_keys if key not in first_keys]
    if only_first or only_other:
        differences = [
            f"{len(keys)} only in {name}: {shown_keys(keys)}"
            for keys, name in ((only_first, first.name), (only_other, other.name))
            if keys
        ]
        raise UserError(
            f"{first.name} and {other.name} have different videos ({'; '.join(differences)}): evaluate both on the "
            "same videos, or use only the common ones with --intersect"
        )


def _in_order(table: Scores, keys: list[str], row_of: dict[str, int]) -> Scores:
    """Return the rows of these keys, in this order."""
    if table.keys == keys:
        return table
    rows = np.array([row_of[key] for key in keys])
    return replace(table, keys=keys, labels=table.labels[rows], probabilities=table.probabilities[rows])
